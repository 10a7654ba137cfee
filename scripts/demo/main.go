// Command demo shows the main job on real packets: a node with the agent, two
// pods attached by cnitool, and two hosts outside that tell which address they
// saw. It checks what it shows and exits 1 when a host saw the wrong address.
//
// It works in network namespaces of its own and changes nothing on the machine;
// it is no benchmark and no test suite.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	backend := flag.String("backend", "auto", "auto, iptables or nftables")
	flag.Parse()
	start := time.Now()
	stage := &stage{}
	if !stage.play(func() { newDemo(stage, *backend).show() }) {
		return 1
	}
	fmt.Printf("\nAll as expected, in %.1f seconds. Nothing is left on this machine.\n", time.Since(start).Seconds())
	return 0
}
