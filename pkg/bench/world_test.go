package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Destinations are in 20.0.0.0/8, one prefix in the lower half of every block of 256 addresses, so that no two touch and
// nothing can be folded: what a backend saves, it saves by its design. Probes go to the upper halves, all over the range.
const (
	world = 20 << 24
	block = 256
)

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// policyOf has n destinations: those of the defaults, link-local among them, and generated ones. Other seeds give others.
func policyOf(n int, seed uint64) policy.Policy {
	p := policy.Default(policy.DefaultSettings())
	random := rand.New(rand.NewPCG(seed, 0))
	for i := len(p.Destinations(policy.IPv4)); i < n; i++ {
		start := address(uint32(world + i*block))
		p.NonMasquerade = append(p.NonMasquerade, netip.PrefixFrom(start, 25+random.IntN(4)))
	}
	random.Shuffle(len(p.NonMasquerade), func(i, j int) {
		p.NonMasquerade[i], p.NonMasquerade[j] = p.NonMasquerade[j], p.NonMasquerade[i]
	})
	return p
}

// touched is the policy with another prefix in the place of one: what an edit of the file does.
func touched(p policy.Policy) policy.Policy {
	extra := netip.PrefixFrom(address(world+block-64), 26)
	p.NonMasquerade = append([]netip.Prefix{}, p.NonMasquerade...)
	p.NonMasquerade[len(p.NonMasquerade)/2] = extra
	return p
}

// yaml is the policy as a configuration file.
func yaml(p policy.Policy) string {
	var b strings.Builder
	b.WriteString("nonMasqueradeCIDRs:\n")
	for _, prefix := range p.NonMasquerade {
		fmt.Fprintf(&b, "  - %s\n", prefix)
	}
	return b.String()
}

// podAddress is the address of the pod with that number.
func podAddress(i int) netip.Addr { return address(uint32(10<<24 + 244<<16 + 256 + i)) }

func addresses(i int) []netip.Addr { return []netip.Addr{podAddress(i)} }

// oldRoot and oldChain are what the Kubernetes agent puts into table nat: one jump for all sources, and a linear chain.
const (
	oldName = "IP-MASQ-AGENT"
	oldText = "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain"
)

var oldRoot = []string{"POSTROUTING", "-m", "comment", "--comment", oldText, "-m", "addrtype", "!", "--dst-type", "LOCAL", "-j", oldName}

// oldChain is what it feeds to iptables-restore at every resync.
func oldChain(p policy.Policy) string {
	var b strings.Builder
	b.WriteString("*nat\n:" + oldName + " - [0:0]\n")
	for _, d := range p.Destinations(policy.IPv4) {
		fmt.Fprintf(&b, "-A %s -m comment --comment \"ip-masq-agent: local traffic is not subject to MASQUERADE\" -d %s -j RETURN\n", oldName, d.Prefix)
	}
	fmt.Fprintf(&b, "-A %s -m comment --comment \"ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)\""+
		" -j MASQUERADE --random-fully\nCOMMIT\n", oldName)
	return b.String()
}

// floorTable masquerades everything with a single native rule: the least that masquerading can cost.
const floorTable = `table ip bench {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    masquerade fully-random
  }
}
`

// setTable is the policy as one interval set in a table of its own, for nft -f: the table and set once, then the contents.
const setTable = "table ip bench { set keep { type ipv4_addr; flags interval; }; }\n"

func setContents(p policy.Policy) string {
	var items []string
	for _, d := range p.Destinations(policy.IPv4) {
		items = append(items, d.Prefix.String())
	}
	return "flush set ip bench keep\nadd element ip bench keep { " + strings.Join(items, ", ") + " }\n"
}
