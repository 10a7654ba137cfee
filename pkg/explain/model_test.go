package explain

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/iptables"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/nftables"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
)

// TestModelsAgree: for random policies and packets, what Judge says is what the longest prefix says, and what the rules of every
// backend do that are rendered for the policy. The rules are read by an interpreter of their text that shares no code with them.
func TestModelsAgree(t *testing.T) {
	const count, seed = 10_000, 1
	r := rand.New(rand.NewPCG(seed, 7))
	seen := map[string]int{}
	for i := range count {
		c := randomCase(r)
		j := Judge(Facts{Policy: c.policy, Attached: c.attached(), Local: c.local}, c.dst)
		state := ruleset.Build(c.policy, c.attachments, ruleset.Node{})
		for name, got := range map[string]policy.Verdict{
			"the longest prefix": c.verdict(),
			"iptables":           c.iptables(t, iptables.Render(state)),
			"nftables":           c.nftables(t, nftables.Render(state)),
		} {
			if got != j.Verdict {
				t.Fatalf("seed %d case %d: %s says %s, Judge %s\n%+v\n%s\n%s", seed, i, name, got, j.Verdict, c, iptables.Render(state), nftables.Render(state))
			}
		}
		seen[fmt.Sprintf("%s %d", j.Verdict, j.cause)]++
	}
	for cause := byPrefix; cause <= multicast; cause++ {
		if seen[fmt.Sprintf("%s %d", policy.Keep, cause)]+seen[fmt.Sprintf("%s %d", policy.Masquerade, cause)] < 100 {
			t.Errorf("cause %d is rare: %v", cause, seen)
		}
	}
}

// modelCase is a policy, pods and a packet.
type modelCase struct {
	policy      policy.Policy
	attachments []attachment.Attachment
	src, dst    netip.Addr
	local       bool
}

func randomCase(r *rand.Rand) modelCase {
	c := modelCase{policy: policy.Policy{Settings: policy.DefaultSettings(), MasqLinkLocal: r.IntN(2) == 0, MasqLinkLocalIPv6: r.IntN(2) == 0}}
	c.policy.Settings.IPv6 = r.IntN(3) > 0
	if r.IntN(3) == 0 {
		c.policy.Settings.Sources = policy.SourcesAll
	}
	if r.IntN(4) == 0 {
		c.policy.Settings.ToPorts, _ = policy.ParsePortRanges("1024-2000,3000-3001")
	}
	taken := map[netip.Prefix]bool{policy.IPv4.LinkLocal(): true, policy.IPv6.LinkLocal(): true}
	edges := []netip.Addr{randomAddr(r), randomAddr(r), randomAddr(r), randomAddr(r)}
	for range r.IntN(10) {
		addr := randomAddr(r)
		prefix, _ := addr.Prefix(r.IntN(addr.BitLen() + 1))
		if taken[prefix] {
			continue
		}
		taken[prefix] = true
		edges = append(edges, prefix.Addr(), prefix.Addr().Prev(), addr, addr.Next())
		if r.IntN(2) == 0 {
			c.policy.Masquerade = append(c.policy.Masquerade, prefix)
		} else {
			c.policy.NonMasquerade = append(c.policy.NonMasquerade, prefix)
		}
	}
	pods := map[bool][]string{true: {"10.244.0.2", "10.244.0.3"}, false: {"fd00:244::2", "fd00:244::3"}}
	for i := range 2 {
		c.attachments = append(c.attachments, attachment.Attachment{
			Owner:     attachment.Owner{Network: "pods", ContainerID: fmt.Sprint("c", i), IfName: "eth0"},
			Addresses: []netip.Addr{netip.MustParseAddr(pods[true][i]), netip.MustParseAddr(pods[false][i])},
		})
	}
	for !c.dst.IsValid() {
		c.dst = edges[r.IntN(len(edges))]
	}
	strangers := map[bool]string{true: "10.244.0.9", false: "fd00:244::9"}
	c.src, c.local = netip.MustParseAddr(append(pods[c.dst.Is4()], strangers[c.dst.Is4()])[r.IntN(3)]), r.IntN(12) == 0
	return c
}

// randomAddr is near an address with a meaning, so that prefixes and packets meet.
func randomAddr(r *rand.Rand) netip.Addr {
	near := []string{"169.254.0.0", "10.0.0.0", "224.0.0.0", "192.0.2.0", "fe80::", "fc00::", "ff00::", "2001:db8::"}
	base := netip.MustParseAddr(near[r.IntN(len(near))]).AsSlice()
	for i := range base {
		base[i] ^= byte(r.IntN(2)) << r.IntN(8) * byte(r.IntN(2))
	}
	addr, _ := netip.AddrFromSlice(base)
	return addr
}

func (c modelCase) attached() bool { return isOf(c.attachments, c.src) }

// verdict is found the slow way.
func (c modelCase) verdict() policy.Verdict {
	s, family := c.policy.Settings, policy.FamilyOf(c.dst)
	ofPods := s.Sources == policy.SourcesPods
	if family == policy.IPv6 && !s.IPv6 || c.local || ofPods && (!c.attached() || c.dst.IsMulticast()) {
		return policy.Keep
	}
	verdict, longest := policy.Masquerade, -1
	try := func(prefixes []netip.Prefix, v policy.Verdict) {
		for _, prefix := range prefixes {
			if prefix.Contains(c.dst) && prefix.Bits() > longest {
				verdict, longest = v, prefix.Bits()
			}
		}
	}
	if family == policy.IPv4 && !c.policy.MasqLinkLocal || family == policy.IPv6 && !c.policy.MasqLinkLocalIPv6 {
		try([]netip.Prefix{family.LinkLocal()}, policy.Keep)
	}
	try(c.policy.NonMasquerade, policy.Keep)
	try(c.policy.Masquerade, policy.Masquerade)
	return verdict
}

// iptables interprets what iptables-restore would be given.
func (c modelCase) iptables(t *testing.T, text string) policy.Verdict {
	rules := map[string][][]string{}
	family := ""
	for line := range strings.Lines(text) {
		words := quoted(line)
		switch {
		case len(words) == 2 && words[0] == "#":
			family = words[1]
		case len(words) > 2 && words[0] == "-A" && family == policy.FamilyOf(c.dst).String():
			rules[words[1]] = append(rules[words[1]], words[2:])
		}
	}
	verdict, done := c.chain(t, rules, "POSTROUTING")
	if !done {
		return policy.Keep
	}
	return verdict
}

// chain is asked until a rule ends the way of the packet; false where it returns.
func (c modelCase) chain(t *testing.T, rules map[string][][]string, chain string) (policy.Verdict, bool) {
	for _, words := range rules[chain] {
		matches, not, target, goes := true, false, "", false
		for i := 0; i < len(words); i++ {
			met, known := true, true
			switch words[i] {
			case "!":
				not = true
				continue
			case "-m":
				known = slices.Contains([]string{"comment", "addrtype", "statistic"}, words[i+1])
			case "--comment", "--mode", "--to-ports":
			case "-s":
				met = netip.MustParsePrefix(words[i+1]).Contains(c.src)
			case "-d":
				met = netip.MustParsePrefix(words[i+1]).Contains(c.dst)
			case "--dst-type":
				met = c.local && words[i+1] == "LOCAL"
			case "-p", "--probability":
				met = false // the packet is of another protocol, and has no luck
			case "-j", "-g":
				target, goes = words[i+1], words[i] == "-g"
			case "--random-fully":
				continue
			default:
				known = false
			}
			if !known {
				t.Fatalf("a word that is not known: %s in %q", words[i], words)
			}
			matches, not = matches && met != not, false
			i++
		}
		switch {
		case !matches:
		case target == "RETURN":
			return policy.Keep, false
		case target == "MASQUERADE":
			return policy.Masquerade, true
		default:
			if verdict, done := c.chain(t, rules, target); done || goes {
				return verdict, done
			}
		}
	}
	return policy.Keep, false
}

// quoted splits a line at blanks outside of quotes.
func quoted(line string) []string {
	var words []string
	for i, part := range strings.Split(strings.TrimSpace(line), `"`) {
		if i%2 == 1 {
			words = append(words, part)
			continue
		}
		words = append(words, strings.Fields(part)...)
	}
	return words
}

// nftables interprets what nft would list.
func (c modelCase) nftables(t *testing.T, text string) policy.Verdict {
	sets, rules := map[string][]string{}, map[string][][]string{}
	block, name := "", ""
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " comment ")
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "}" || words[0] == "comment" || words[0] == "type" || words[0] == "flags" || words[0] == "elements":
		case words[0] == "set" || words[0] == "chain":
			block, name = words[0], words[1]
		case block == "set":
			sets[name] = append(sets[name], strings.TrimSuffix(words[0], ","))
		case block == "chain":
			rules[name] = append(rules[name], words)
		}
	}
	chain := "postrouting"
	for i := 0; i < len(rules[chain]); i++ {
		words := rules[chain][i]
		target := ""
		for len(words) > 0 && target == "" {
			met, used := true, 0
			switch first := strings.Join(words[:min(3, len(words))], " "); {
			case strings.HasPrefix(first, "meta nfproto "):
				met, used = (words[2] == "ipv4") == c.dst.Is4(), 3
			case strings.HasPrefix(first, "ip saddr @"), strings.HasPrefix(first, "ip6 saddr @"):
				met, used = (words[0] == "ip") == c.src.Is4() && inRanges(sets[words[2][1:]], c.src), 3
			case strings.HasPrefix(first, "ip daddr @"), strings.HasPrefix(first, "ip6 daddr @"):
				met, used = (words[0] == "ip") == c.dst.Is4() && inRanges(sets[words[2][1:]], c.dst), 3
			case first == "fib daddr type" && words[3] == "local":
				met, used = c.local, 4
			case first == "fib daddr type" && words[3] == "!=" && words[4] == "local":
				met, used = !c.local, 5
			case strings.HasPrefix(first, "meta l4proto "), words[0] == "numgen":
				met, used = false, len(words) // the packet is of another protocol
			case words[0] == "counter":
				used = 1
			case words[0] == "goto" || words[0] == "return" || words[0] == "masquerade":
				target = words[0]
				if target == "goto" {
					target = words[1]
				}
			default:
				t.Fatalf("words that are not known: %q", words)
			}
			if !met {
				break
			}
			words = words[used:]
		}
		switch target {
		case "":
		case "return":
			return policy.Keep
		case "masquerade":
			return policy.Masquerade
		default:
			chain, i = target, -1
		}
	}
	return policy.Keep
}

// inRanges reads addresses, prefixes and ranges.
func inRanges(members []string, addr netip.Addr) bool {
	return slices.ContainsFunc(members, func(member string) bool {
		if prefix, err := netip.ParsePrefix(member); err == nil {
			return prefix.Contains(addr)
		}
		first, last, ranged := strings.Cut(member, "-")
		if !ranged {
			last = first
		}
		return netip.MustParseAddr(first).Compare(addr) <= 0 && addr.Compare(netip.MustParseAddr(last)) <= 0
	})
}
