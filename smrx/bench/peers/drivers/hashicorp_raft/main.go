// One member of an echo service on hashicorp/raft. It speaks the packets that smrx's load generator sends to a gateway
// (docs/gateway.md of smrx): a login, commands of 64 bytes, and an answer of 64 bytes for each. A command is one entry of the
// log; its answer leaves when the entry is committed and applied here. Nothing is matched.
//
// Usage: node NUMBER DIRECTORY CLIENTS MEMBERS. DIRECTORY is empty for a log in memory. CLIENTS is the address for clients,
// MEMBERS the Raft addresses of all members, separated by commas. It ends when its standard input does.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
)

const (
	recordSize = 64
	headSize   = 3
	accepted   = 1
)

// An echo answers each applied command on the connection of its session.
type echo struct {
	mutex   sync.RWMutex
	clients map[uint64]*client
}

// A client is one connection. Its answers are written by one goroutine, as many at once as there are.
type client struct {
	conn    net.Conn
	answers chan [recordSize]byte
}

func (e *echo) ApplyBatch(logs []*raft.Log) []any {
	e.mutex.RLock()
	defer e.mutex.RUnlock()
	for _, log := range logs {
		if log.Type != raft.LogCommand || len(log.Data) != recordSize {
			continue
		}
		session := binary.LittleEndian.Uint64(log.Data[8:])
		if to := e.clients[session]; to != nil {
			var answer [recordSize]byte
			copy(answer[8:24], log.Data[8:24])
			answer[0] = accepted
			binary.LittleEndian.PutUint64(answer[24:], log.Index)
			to.answers <- answer
		}
	}
	return make([]any, len(logs))
}

func (e *echo) Apply(log *raft.Log) any { return e.ApplyBatch([]*raft.Log{log})[0] }

func (e *echo) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("an echo has no state") }

func (e *echo) Restore(from io.ReadCloser) error { return from.Close() }

func (e *echo) register(session uint64, c *client) {
	e.mutex.Lock()
	e.clients[session] = c
	e.mutex.Unlock()
}

func (c *client) write() {
	out := bufio.NewWriterSize(c.conn, 1<<16)
	head := []byte{0, recordSize + 1, 'S'}
	for answer := range c.answers {
		out.Write(head)
		out.Write(answer[:])
		if len(c.answers) == 0 && out.Flush() != nil {
			return
		}
	}
}

func serve(conn net.Conn, node *raft.Raft, e *echo) {
	defer conn.Close()
	c := &client{conn, make(chan [recordSize]byte, 1<<16)}
	in := bufio.NewReaderSize(conn, 1<<16)
	known := map[uint64]bool{}
	for {
		var head [headSize]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		payload := make([]byte, int(binary.BigEndian.Uint16(head[:]))-1)
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		switch head[2] {
		case 'L':
			if node.State() != raft.Leader {
				conn.Write([]byte{0, 2, 'J', 'A'})
				return
			}
			fmt.Fprintf(conn, "\x00\x1fA%10d%20d", 0, 1)
			go c.write()
		case 'U':
			if len(payload) != recordSize {
				return
			}
			if session := binary.LittleEndian.Uint64(payload[8:]); !known[session] {
				known[session] = true
				e.register(session, c)
			}
			node.Apply(payload, 0)
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	number, err := strconv.Atoi(os.Args[1])
	check(err)
	directory, clients, members := os.Args[2], os.Args[3], strings.Split(os.Args[4], ",")

	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(os.Args[1])
	config.LogOutput = io.Discard
	config.SnapshotInterval = 24 * time.Hour
	config.SnapshotThreshold = 1 << 60
	// What its documentation recommends for throughput.
	config.BatchApplyCh = true
	config.MaxAppendEntries = 1024

	memory := raft.NewInmemStore()
	var logs raft.LogStore = memory
	var stable raft.StableStore = memory
	if directory != "" {
		store, err := boltdb.NewBoltStore(filepath.Join(directory, "raft.db"))
		check(err)
		logs, stable = store, store
	}
	transport, err := raft.NewTCPTransport(members[number], nil, 3, 10*time.Second, io.Discard)
	check(err)
	e := &echo{clients: map[uint64]*client{}}
	node, err := raft.NewRaft(config, e, logs, stable, raft.NewInmemSnapshotStore(), transport)
	check(err)
	var servers []raft.Server
	for at, address := range members {
		servers = append(servers, raft.Server{ID: raft.ServerID(strconv.Itoa(at)), Address: raft.ServerAddress(address)})
	}
	check(node.BootstrapCluster(raft.Configuration{Servers: servers}).Error())

	listener, err := net.Listen("tcp", clients)
	check(err)
	go func() {
		for {
			conn, err := listener.Accept()
			check(err)
			go serve(conn, node, e)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}
