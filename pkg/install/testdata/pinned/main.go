// Command pinned is ip-masq-installer on one thread: strace counts system calls by thread, and a test that ends the program at
// the n-th one needs all of them on the same.
package main

import (
	"os"
	"runtime"

	"github.com/ip-masq/ip-masq-cni/pkg/cli"
	"github.com/ip-masq/ip-masq-cni/pkg/install"
)

func init() { runtime.LockOSThread() }

func main() { os.Exit(cli.Execute(install.Command(), os.Args[1:], os.Stdout, os.Stderr)) }
