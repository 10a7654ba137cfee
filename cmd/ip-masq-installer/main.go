// Command ip-masq-installer puts the CNI plugin ip-masq on a node and into the network that the node's container runtime
// loads, keeps it there, and takes it out again.
package main

import (
	"os"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/install"
)

func main() { os.Exit(cli.Execute(install.Command(), os.Args[1:], os.Stdout, os.Stderr)) }
