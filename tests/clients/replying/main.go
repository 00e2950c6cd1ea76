// Sends each line of its input as a command and prints each reply behind the number of its line, with nothing of ours.
//
// Arguments: bootstrap servers, topic of the commands, topic of the replies.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const patience = 60 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := exchange(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func exchange(ctx context.Context, servers, commands, replies string) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(servers),
		kgo.ConsumeTopics(replies),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	waiting := 0
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		number := strconv.Itoa(waiting)
		record := &kgo.Record{Topic: commands, Key: []byte(number), Value: []byte(lines.Text()), Headers: []kgo.RecordHeader{
			{Key: "reply_to", Value: []byte(replies)},
			{Key: "correlation_id", Value: []byte(number)},
		}}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			return err
		}
		waiting++
	}
	for waiting > 0 {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return err
		}
		fetched.EachRecord(func(reply *kgo.Record) {
			fmt.Printf("%s\t%d\t%s\t%s\n", header(reply, "correlation_id"), reply.Partition, header(reply, "status_code"), reply.Value)
			waiting--
		})
	}
	return nil
}

func header(record *kgo.Record, name string) string {
	for _, each := range record.Headers {
		if each.Key == name {
			return string(each.Value)
		}
	}
	return ""
}
