package main

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// awaitReady asks the agent's /readyz, which listens inside the node.
func (d *demo) awaitReady() {
	client := &http.Client{
		Timeout:   time.Second,
		Transport: &http.Transport{DialContext: d.node.DialContext, DisableKeepAlives: true},
	}
	answer := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case <-d.agent.Done:
			d.Fatalf("the agent ended:\n%s", d.agent.Output())
		default:
		}
		r, err := client.Get("http://" + metrics + "/readyz")
		if err != nil {
			answer = err.Error()
			continue
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode == http.StatusOK {
			return
		}
		answer = r.Status + ": " + string(body)
	}
	d.Fatalf("the agent is not ready: %s\n%s", answer, d.agent.Output())
}

// addresses are those of a CNI result.
func (d *demo) addresses(result string) (addrs []netip.Addr) {
	var r struct {
		IPs []struct{ Address netip.Prefix }
	}
	d.decode(result, &r)
	for _, ip := range r.IPs {
		addrs = append(addrs, ip.Address.Addr())
	}
	if len(addrs) == 0 {
		d.Fatalf("no address in %s", result)
	}
	return addrs
}

// listPolicy prints the shared policy the way an operator would.
func (d *demo) listPolicy() {
	d.headline("The policy, as it stands in the kernel")
	command := []string{"iptables", "-t", "nat", "-L", chain}
	if d.usesNFTables() {
		command = []string{"nft", "list", "table", "inet", "ip-masq-agent"}
	}
	quote(strings.Join(command, " "), d.node.Run(d, command...))
}

// usesNFTables: with auto, the kernel tells what the agent has chosen.
func (d *demo) usesNFTables() bool {
	if d.backend != "auto" {
		return d.backend == "nftables"
	}
	r, err := d.node.Exec(context.Background(), netnstest.Cmd{Args: []string{"nft", "list", "table", "inet", "ip-masq-agent"}})
	return err == nil && r.Code == 0
}

// nothingLeft looks for the pods' addresses in the rules, and for records. The
// pods' chain itself may be there or not.
func (d *demo) nothingLeft() {
	command := []string{"iptables", "-t", "nat", "-S", chain + "-PODS"}
	if d.usesNFTables() {
		command = []string{"nft", "list", "table", "inet", "ip-masq-agent"}
	}
	rules, err := d.node.Exec(context.Background(), netnstest.Cmd{Args: command})
	if err != nil {
		d.Fatalf("%v", err)
	}
	quote(strings.Join(command, " "), rules.Stdout+rules.Stderr)
	for _, pod := range d.pods {
		if strings.Contains(rules.Stdout, pod.Addrs[0].String()) {
			d.Fatalf("%s still has a rule", pod.Addrs[0])
		}
	}
	if records, _ := filepath.Glob(filepath.Join(d.node.StateDir, "attachments", "*")); len(records) != 0 {
		d.Fatalf("records are left: %s", strings.Join(records, " "))
	}
	say("")
	say("No rule of a pod, and no record in the state directory.")
}
