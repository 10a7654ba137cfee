// Command ip-masq is a chained CNI plugin: it puts every new pod behind the node's shared masquerade policy before the pod
// sends its first packet.
//
// It refuses to touch the pod's namespace, to need the agent or the Kubernetes API, to change the shared chain once that has
// rules, and to print anything but the one JSON document that the specification asks for.
//
// It does not watch for another limit of processors, for which the runtime would start a goroutine: it runs for milliseconds.
//
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/containernetworking/plugins/pkg/utils/buildversion"
)

// supported are the specification versions in which every verb is tested.
var supported = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) == 2 && strings.TrimLeft(os.Args[1], "-") == "version" {
		_, _ = fmt.Println("ip-masq", buildversion.BuildVersion)
		return 0
	}
	funcs := skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}
	about := buildversion.BuildString("ip-masq") + ": masquerades pods behind the shared chain IP-MASQ-AGENT"
	err := skel.PluginMainFuncsWithError(funcs, supported, about)
	if err == nil {
		return 0
	}
	printError(os.Stdout, err)
	return 1
}

// printError prints the error result of the specification, section 5. The library's own has no cniVersion.
func printError(to *os.File, err *types.Error) {
	result := struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
		Msg        string `json:"msg"`
		Details    string `json:"details,omitempty"`
	}{errorVersion(), err.Code, err.Msg, err.Details}
	printJSON(to, result)
}
