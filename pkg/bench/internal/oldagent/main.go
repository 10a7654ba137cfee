// Command oldagent stands in for the Kubernetes agent's start: it starts the programs that the agent starts until its rules stand
// on a node that never had it, one after the other. Its input is what the agent feeds to iptables-restore, its arguments are the
// chain's name and the root rule. It leaves out what else the agent does: reading its file, logging, and finding out which iptables
// its image should use.
package main

import (
	"log"
	"os"
	"os/exec"
)

func main() {
	chain, root := os.Args[1], os.Args[2:]
	if err := exec.Command("iptables", "--version").Run(); err != nil {
		log.Fatal(err)
	}
	_ = iptables("-N", chain).Run()
	if iptables(append([]string{"-C"}, root...)...).Run() != nil {
		if err := iptables(append([]string{"-A"}, root...)...).Run(); err != nil {
			log.Fatal(err)
		}
	}
	restore := exec.Command("iptables-restore", "-w", "--noflush")
	restore.Stdin = os.Stdin
	if err := restore.Run(); err != nil {
		log.Fatal(err)
	}
}

func iptables(args ...string) *exec.Cmd {
	return exec.Command("iptables", append([]string{"-w", "-t", "nat"}, args...)...)
}
