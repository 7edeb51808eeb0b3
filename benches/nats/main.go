// Publishes to a stream of JetStream with the official Go client, the way `nats bench js pub async` does: each client
// sends a batch, waits until all of it is confirmed, and sends the next. Prints how many a second were confirmed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	url := flag.String("url", nats.DefaultURL, "the server")
	subject := flag.String("subject", "raw.bench", "a subject that a stream takes")
	size := flag.Int("size", 128, "bytes of each message")
	batch := flag.Int("batch", 500, "messages that a client sends before it waits")
	clients := flag.Int("clients", 1, "clients, each with a connection of its own")
	measured := flag.Duration("for", 5*time.Second, "how long")
	flag.Parse()

	payload := []byte(`{"text":"` + strings.Repeat("x", max(*size-11, 0)) + `"}`)
	counts := make([]int, *clients)
	failures := make([]error, *clients)
	var running sync.WaitGroup
	begin := time.Now()
	for client := range *clients {
		running.Go(func() {
			counts[client], failures[client] = publish(*url, *subject, payload, *batch, begin.Add(*measured))
		})
	}
	running.Wait()
	took := time.Since(begin)
	if err := errors.Join(failures...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	total := 0
	for _, count := range counts {
		total += count
	}
	fmt.Printf("%.0f\n", float64(total)/took.Seconds())
}

// publish sends batches until the deadline, and returns how many messages were confirmed.
func publish(url, subject string, payload []byte, batch int, deadline time.Time) (int, error) {
	connection, err := nats.Connect(url)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", url, err)
	}
	defer connection.Close()
	stream, err := jetstream.New(connection, jetstream.WithPublishAsyncMaxPending(batch))
	if err != nil {
		return 0, err
	}
	count := 0
	for time.Now().Before(deadline) {
		futures := make([]jetstream.PubAckFuture, batch)
		for number := range futures {
			if futures[number], err = stream.PublishAsync(subject, payload); err != nil {
				return 0, err
			}
		}
		<-stream.PublishAsyncComplete()
		for _, future := range futures {
			select {
			case <-future.Ok():
				count++
			case err := <-future.Err():
				return 0, err
			}
		}
	}
	return count, nil
}
