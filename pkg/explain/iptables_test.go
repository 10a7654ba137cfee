package explain

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// effect is what rules do with a packet, as an interpreter of their text finds it.
type effect struct {
	verdict policy.Verdict
	address netip.Addr // of Translate
	ports   string
	random  bool
}

// xtables is a table nat as iptables-restore would be given it, and the packet that goes through it.
type xtables struct {
	*testing.T
	modelCase
	rules map[string][][]string
	luck  *rand.Rand
}

// iptables interprets what is rendered, which it shares no code with.
func (c modelCase) iptables(t *testing.T, text string, luck *rand.Rand) effect {
	x := xtables{t, c, map[string][][]string{}, luck}
	family := ""
	for line := range strings.Lines(text) {
		words := quoted(line)
		switch {
		case len(words) == 2 && words[0] == "#":
			family = words[1]
		case len(words) > 2 && words[0] == "-A" && family == policy.FamilyOf(c.packet.Destination).String():
			x.rules[words[1]] = append(x.rules[words[1]], words[2:])
		}
	}
	e, _ := x.chain("POSTROUTING")
	return e
}

// chain is asked until a rule ends the way of the packet; false where it returns.
func (x xtables) chain(chain string) (effect, bool) {
	for _, words := range x.rules[chain] {
		met, options := x.matches(words)
		if !met {
			continue
		}
		_, random := options["--random-fully"]
		switch target := options["-j"] + options["-g"]; target {
		case "RETURN":
			return effect{verdict: policy.Keep}, false
		case "MASQUERADE":
			return effect{policy.Masquerade, netip.Addr{}, options["--to-ports"], random}, true
		case "SNAT":
			to, ports := withPorts(x.T, options["--to-source"])
			return effect{policy.Translate, to, ports, random}, true
		case "NFQUEUE": // nobody listens
			return effect{verdict: policy.Drop}, true
		default:
			if _, there := x.rules[target]; !there && target != x.policy.Settings.PodsChain() && !strings.HasSuffix(target, "-SRC") {
				x.Fatalf("%s leads to a chain that is not there: %q", chain, words)
			}
			if e, done := x.chain(target); done || options["-g"] != "" {
				return e, done
			}
		}
	}
	return effect{verdict: policy.Keep}, false
}

// matches reports whether a rule is about the packet, and the options of its target.
func (x xtables) matches(words []string) (met bool, options map[string]string) {
	met, options = true, map[string]string{}
	not := false
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		var is bool
		switch words[i] {
		case "!":
			not = true
			continue
		case "--random-fully":
			options[words[i]] = ""
			continue
		case "--comment", "--mode":
			i++
			continue
		case "-m":
			if !slices.Contains([]string{"comment", "addrtype", "statistic"}, value) {
				x.Fatalf("a match that is not known: %q", words)
			}
			i++
			continue
		case "-j", "-g", "--to-ports", "--to-source", "--queue-num":
			options[words[i]] = value
			i++
			continue
		case "-s":
			is = under(x.T, value, x.packet.Source)
		case "-d":
			is = under(x.T, value, x.packet.Destination)
		case "-o":
			start, wild := strings.CutSuffix(value, "+")
			is = x.packet.Output == value || wild && strings.HasPrefix(x.packet.Output, start)
		case "--dst-type":
			is = x.packet.Local && value == "LOCAL"
		case "-p":
			is = value == x.protocol
		case "--probability":
			chance, err := strconv.ParseFloat(value, 64)
			if err != nil {
				x.Fatal(err)
			}
			is = x.luck.Float64() < chance
		default:
			x.Fatalf("a word that is not known: %s in %q", words[i], words)
		}
		met, not = met && is != not, false
		i++
	}
	return met, options
}

// under reads an address with a mask, which may have holes, or a number of bits.
func under(t *testing.T, text string, addr netip.Addr) bool {
	address, mask, _ := strings.Cut(text, "/")
	if _, err := strconv.Atoi(mask); err == nil {
		return netip.MustParsePrefix(text).Contains(addr)
	}
	want, bits, got := netip.MustParseAddr(address).AsSlice(), netip.MustParseAddr(mask).AsSlice(), addr.AsSlice()
	if len(want) != len(got) || len(bits) != len(got) {
		t.Fatalf("%s is of another family than %s", text, addr)
	}
	for i := range got {
		if got[i]&bits[i] != want[i] {
			return false
		}
	}
	return true
}

// withPorts reads an address, and ports behind a colon where there are any.
func withPorts(t *testing.T, text string) (netip.Addr, string) {
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return addr, ""
	}
	at := strings.LastIndexByte(text, ':')
	addr, err := netip.ParseAddr(strings.Trim(text[:max(at, 0)], "[]"))
	if err != nil {
		t.Fatalf("%q is no address with ports", text)
	}
	return addr, text[at+1:]
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
