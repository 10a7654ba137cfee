// Command ip-masq-agent owns a node's masquerade policy: it reads /etc/config/ip-masq-agent, renders it into the shared chain
// IP-MASQ-AGENT, and keeps kernel and policy equal.
package main

import (
	"os"

	"github.com/ip-masq/ip-masq-cni/pkg/agent"
)

func main() {
	os.Exit(agent.Program{Stdout: os.Stdout, Stderr: os.Stderr}.Main(os.Args[1:]))
}
