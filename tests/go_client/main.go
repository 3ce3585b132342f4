// A client of the binary protocol, written from docs/protocol.md alone: it finds the leader, opens a session, places a
// limit order with a long client order id and cancels it by that id. Usage: client HOST:PORT ACCOUNT INSTRUMENT
package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

var le = binary.LittleEndian

const (
	commandsFrame, outcomesFrame, pingFrame, pongFrame = 1, 2, 5, 6
	place, cancel, openSession                         = 1, 2, 10
)

// socket is a DEALER over ZMTP 3.1 with the NULL mechanism: one frame is one message.
type socket struct{ net.Conn }

func connect(address string) socket {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	check(err)
	check(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	greeting := make([]byte, 64)
	copy(greeting, "\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL")
	ready := "\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
	_, err = conn.Write(append(greeting, append([]byte{4, byte(len(ready))}, ready...)...))
	check(err)
	_, err = io.ReadFull(conn, greeting)
	check(err)
	s := socket{conn}
	if flags, _ := s.read(); flags&4 == 0 {
		fail("expected a READY command after the greeting")
	}
	return s
}

func (s socket) read() (byte, []byte) {
	var head [9]byte
	_, err := io.ReadFull(s, head[:2])
	check(err)
	size := uint64(head[1])
	if head[0]&2 != 0 { // a long frame: eight bytes of length, big-endian
		_, err = io.ReadFull(s, head[2:9])
		check(err)
		size = binary.BigEndian.Uint64(head[1:9])
	}
	body := make([]byte, size)
	_, err = io.ReadFull(s, body)
	check(err)
	return head[0], body
}

// ask sends a frame and returns the first answer of the wanted kind.
func (s socket) ask(kind, wanted byte, count, details uint32, aux uint64, body []byte) []byte {
	frame := make([]byte, 32, 32+len(body))
	copy(frame, "SMRX\x02")
	frame[5] = kind
	le.PutUint32(frame[8:], count)
	le.PutUint32(frame[12:], details)
	le.PutUint64(frame[16:], 1) // correlation
	le.PutUint64(frame[24:], aux)
	frame = append(frame, body...)
	head := []byte{2, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint64(head[1:], uint64(len(frame)))
	_, err := s.Write(append(head, frame...))
	check(err)
	for {
		flags, answer := s.read()
		if flags&4 != 0 || len(answer) < 32 { // a ZMTP command, such as a heartbeat
			continue
		}
		if answer[5] != wanted {
			fail("expected frame kind %d, found %d: %q", wanted, answer[5], answer[32:])
		}
		return answer[32:]
	}
}

// orderAddress returns order_address of a LeaderHint, a msgpack map; "" if there is no leader.
func orderAddress(hint []byte) string {
	text := string(hint)
	at := strings.Index(text, "order_address")
	value := text[at+len("order_address"):]
	switch kind := value[0]; {
	case kind == 0xc0: // nil
		return ""
	case kind == 0xd9: // text of up to 255 bytes
		return value[2 : 2+int(value[1])]
	default: // text of up to 31 bytes
		return value[1 : 1+int(kind&0x1f)]
	}
}

func leader(address string) socket {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		s := connect(address)
		found := orderAddress(s.ask(pingFrame, pongFrame, 0, 0, 0, nil))
		check(s.Close())
		if found != "" {
			return connect(strings.TrimPrefix(found, "tcp://"))
		}
	}
	fail("there is no leader")
	return socket{}
}

// request sends one command, with details if there are any, and prints and returns its outcome.
func (s socket) request(name string, command, details []byte) []byte {
	outcome := s.ask(commandsFrame, outcomesFrame, 1, uint32(len(details)/128), 0, append(command, details...))
	fmt.Printf("%s status %d event_kind %d reason %d order_id %d\n",
		name, outcome[0], outcome[1], le.Uint16(outcome[2:]), le.Uint64(outcome[32:]))
	return outcome
}

func main() {
	if len(os.Args) != 4 {
		fail("usage: client HOST:PORT ACCOUNT INSTRUMENT")
	}
	account, err := strconv.ParseUint(os.Args[2], 10, 32)
	check(err)
	instrument, err := strconv.ParseUint(os.Args[3], 10, 32)
	check(err)
	s := leader(os.Args[1])
	session := make([]byte, 8) // the upper half is the credential of the connection: 0 without keys
	_, err = rand.Read(session[:4])
	check(err)

	command := func(kind byte, requestID uint64) []byte {
		c := make([]byte, 64)
		c[0] = kind
		copy(c[8:], session)
		le.PutUint64(c[16:], requestID)
		le.PutUint32(c[24:], uint32(account))
		return c
	}
	s.request("OPEN_SESSION", command(openSession, 0), nil)

	details := make([]byte, 128)
	copy(details, fmt.Sprintf("go-client-%x", session)) // more than 8 characters: it stands in the details
	order := command(place, 1)
	order[1], order[2], order[3], order[4] = 1, 1, 1, 1 // buy, limit, GTC, cancel newest
	le.PutUint16(order[6:], 1)                          // the first details of the frame
	le.PutUint32(order[28:], uint32(instrument))
	le.PutUint64(order[48:], 1) // price in ticks
	le.PutUint64(order[56:], 1) // quantity in lots
	s.request("PLACE", order, details)

	wanted := command(cancel, 2)
	le.PutUint16(wanted[6:], 1)
	first := s.request("CANCEL", wanted, details)
	if again := s.request("CANCEL again", wanted, details); string(again) != string(first) {
		fail("expected the first answer for a repeated request")
	}
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(text string, values ...any) {
	fmt.Fprintf(os.Stderr, text+"\n", values...)
	os.Exit(1)
}
