package backendtest

import (
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// program names one of the iptables programs of the backend's variant.
func (f *fixture) program(family policy.Family, role string) string {
	name := "iptables"
	if family == policy.IPv6 {
		name = "ip6tables"
	}
	return name + strings.TrimPrefix(string(f.backend.Kind()), "iptables") + role
}

func (f *fixture) isNFT() bool { return f.backend.Kind() == backend.NFTables }

// ownTable is where the nftables backend has everything.
const ownTable = "ip-masq-agent"

// dump prints all rules that there are, with their counters.
func (f *fixture) dump() string {
	f.Helper()
	if f.isNFT() {
		return f.space.Run(f.T, "nft", "list", "ruleset")
	}
	return withoutNotes(f.space.Run(f.T, f.program(policy.IPv4, "-save"), "-c") + f.space.Run(f.T, f.program(policy.IPv6, "-save"), "-c"))
}

// withoutNotes drops the lines that hold the time.
func withoutNotes(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// flush empties one of our chains behind the backend's back.
func (f *fixture) flush(chain string) {
	f.Helper()
	if f.isNFT() {
		f.space.Run(f.T, "nft", "flush", "chain", "inet", ownTable, chain)
		return
	}
	for _, family := range f.s.Families() {
		f.space.Run(f.T, f.program(family, ""), "-w", "-t", "nat", "-F", chain)
	}
}

// flushRoot empties the chain that leads to ours.
func (f *fixture) flushRoot() {
	f.Helper()
	if f.isNFT() {
		f.flush("postrouting")
		return
	}
	f.flush("POSTROUTING")
}

// ours reports whether a dump shows anything that a backend wrote.
func (f *fixture) ours() bool {
	f.Helper()
	return strings.Contains(strings.ToLower(f.dump()), "ip-masq")
}

// foreignTable has names that could be taken for ours.
const foreignTable = `table inet foreign {
	set pods4 { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 203.0.113.7 }; }
	chain postrouting {
		type nat hook postrouting priority srcnat
		ip daddr @pods4 counter return
	}
	chain IP-MASQ-AGENT {
		counter
	}
}`

// addForeign makes objects of other software, in the form of whatever the backend writes and in native nftables.
func (f *fixture) addForeign() {
	f.Helper()
	f.space.Run(f.T, "nft", foreignTable)
	if f.isNFT() {
		f.space.Run(f.T, "nft", strings.Replace(foreignTable, "inet foreign", "ip ip-masq-agent", 1))
		return
	}
	for _, family := range []policy.Family{policy.IPv4, policy.IPv6} {
		for _, args := range [][]string{
			{"-t", "nat", "-N", "FOREIGN"},
			{"-t", "nat", "-A", "FOREIGN", "-m", "comment", "--comment", "a \"quoted\" word", "-j", "RETURN"},
			{"-t", "nat", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x4000/0x4000", "-j", "FOREIGN"},
			{"-t", "filter", "-A", "FORWARD", "-i", "eth7", "-j", "ACCEPT"},
		} {
			f.space.Run(f.T, append([]string{f.program(family, ""), "-w"}, args...)...)
		}
	}
}

// foreign prints everything that is not ours.
func (f *fixture) foreign() string {
	f.Helper()
	text := f.space.Run(f.T, "nft", "-a", "list", "table", "inet", "foreign")
	if f.isNFT() {
		return text + f.space.Run(f.T, "nft", "-a", "list", "table", "ip", "ip-masq-agent")
	}
	for line := range strings.Lines(f.dump()) {
		if !strings.Contains(strings.ToLower(line), "ip-masq") {
			text += line
		}
	}
	return text
}
