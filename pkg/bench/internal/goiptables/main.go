// Command goiptables is a chained CNI plugin written the way that the reference plugins are: it makes sure of the shared
// chain and of the pod's jump to it with the calls of go-iptables, each of which starts a program.
package main

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/coreos/go-iptables/iptables"
)

const (
	table       = "nat"
	postrouting = "POSTROUTING"
	chain       = "IP-MASQ-AGENT"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del}, version.All, "CNI plugin goiptables: one jump per pod, by go-iptables")
}

func add(args *skel.CmdArgs) error {
	result, conf, err := previous(args)
	if err != nil {
		return err
	}
	ipt, err := iptables.New()
	if err != nil {
		return err
	}
	if err := ensureChain(ipt); err != nil {
		return err
	}
	for _, ip := range result.IPs {
		if err := ipt.AppendUnique(table, postrouting, jump(args, ip.Address.IP.String())...); err != nil {
			return err
		}
	}
	return types.PrintResult(result, conf.CNIVersion)
}

func ensureChain(ipt *iptables.IPTables) error {
	exists, err := ipt.ChainExists(table, chain)
	if err != nil || exists {
		return err
	}
	return ipt.NewChain(table, chain)
}

func del(args *skel.CmdArgs) error {
	result, _, err := previous(args)
	if err != nil {
		return err
	}
	ipt, err := iptables.New()
	if err != nil {
		return err
	}
	for _, ip := range result.IPs {
		if err := ipt.DeleteIfExists(table, postrouting, jump(args, ip.Address.IP.String())...); err != nil {
			return err
		}
	}
	return nil
}

func jump(args *skel.CmdArgs, address string) []string {
	return []string{"-s", address + "/32", "-m", "comment", "--comment", fmt.Sprintf("id: %q", args.ContainerID), "-j", chain}
}

func previous(args *skel.CmdArgs) (*current.Result, *types.PluginConf, error) {
	conf := &types.PluginConf{}
	if err := json.Unmarshal(args.StdinData, conf); err != nil {
		return nil, nil, err
	}
	if err := version.ParsePrevResult(conf); err != nil {
		return nil, nil, err
	}
	result, err := current.NewResultFromResult(conf.PrevResult)
	return result, conf, err
}
