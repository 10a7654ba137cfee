// Command talker is all that is in the tests' image, both as the sandbox and as a container: it sends a datagram to every
// address among its arguments as soon as it lives, and again twenty times a second. Every round says who is talking and
// counts, and comes from a new port, so that the kernel decides about each anew.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	host, _ := os.Hostname()
	role := "sandbox"
	if r := os.Getenv("ROLE"); r != "" {
		role = r
	}
	for round := 0; ; round++ {
		for _, to := range os.Args[1:] {
			send(to, fmt.Sprintf("%s %s %d", host, role, round))
		}
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// send is best effort: who listens counts.
func send(to, message string) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(message))
}
