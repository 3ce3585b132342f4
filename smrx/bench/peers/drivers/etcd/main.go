// etcd's server, and a load on a cluster of them.
//
// Usage: etcd server OPTIONS... is the server itself. etcd load ENDPOINTS CONNECTIONS IN-FLIGHT WARM-UP SECONDS puts values of
// 64 bytes at the leader, with as many requests under way on each connection, and prints one line of JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.uber.org/zap"
)

const (
	valueSize   = 64
	electionMax = 30 * time.Second
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func integer(text string) int {
	number, err := strconv.Atoi(text)
	check(err)
	return number
}

func seconds(text string) time.Duration {
	number, err := strconv.ParseFloat(text, 64)
	check(err)
	return time.Duration(number * float64(time.Second))
}

func cpu() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// put sends one request after another until the end and returns the latencies of those sent and answered in between.
func put(client *clientv3.Client, key string, begin, end time.Time) []int64 {
	value := strings.Repeat("x", valueSize)
	var latencies []int64
	for {
		sent := time.Now()
		if sent.After(end) {
			return latencies
		}
		_, err := client.Put(context.Background(), key, value)
		check(err)
		if answered := time.Now(); sent.After(begin) && answered.Before(end) {
			latencies = append(latencies, answered.Sub(sent).Nanoseconds())
		}
	}
}

// leader waits for a leader and returns its endpoint.
func leader(endpoints []string) string {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	check(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), electionMax)
	defer cancel()
	for {
		for _, endpoint := range endpoints {
			status, err := client.Status(ctx, endpoint)
			if err == nil && status.Leader == status.Header.MemberId {
				return endpoint
			}
		}
		check(ctx.Err())
	}
}

func load(endpoint string, connections, inFlight int, warmUp, measured time.Duration) {
	var clients []*clientv3.Client
	for range connections {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
		check(err)
		clients = append(clients, client)
	}
	begin := time.Now().Add(warmUp)
	end := begin.Add(measured)
	found := make([][]int64, connections*inFlight)
	var group sync.WaitGroup
	for at := range found {
		group.Add(1)
		go func() {
			defer group.Done()
			found[at] = put(clients[at%connections], fmt.Sprint("smrx/", at), begin, end)
		}()
	}
	time.Sleep(time.Until(begin))
	before := cpu()
	time.Sleep(time.Until(end))
	used := cpu() - before
	group.Wait()
	latencies := slices.Concat(found...)
	if len(latencies) == 0 {
		check(fmt.Errorf("no request was answered in %v", measured))
	}
	slices.Sort(latencies)
	at := func(share float64) float64 { return float64(latencies[int(share*float64(len(latencies)-1))]) / 1e3 }
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"acknowledged": len(latencies), "seconds": measured.Seconds(), "p50_us": at(0.5), "p99_us": at(0.99), "cpu_s": used,
	}))
}

func main() {
	if os.Args[1] == "load" {
		load(leader(strings.Split(os.Args[2], ",")), integer(os.Args[3]), integer(os.Args[4]), seconds(os.Args[5]), seconds(os.Args[6]))
		return
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	etcdmain.Main(append([]string{"etcd"}, os.Args[2:]...))
}
