package explain

import (
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// nftTable is a table as nft would list it, and the packet that goes through it.
type nftTable struct {
	*testing.T
	modelCase
	sets   map[string][]nftElement // and maps
	chains map[string][][]string
	luck   *rand.Rand
}

// nftElement is an address, a prefix or a range, and what a map has for it.
type nftElement struct {
	key   string
	value []string
}

var nftComment = regexp.MustCompile(` comment "[^"]*"`)

// nftables interprets what is rendered, which it shares no code with.
func (c modelCase) nftables(t *testing.T, text string, luck *rand.Rand) effect {
	n := nftTable{t, c, map[string][]nftElement{}, map[string][][]string{}, luck}
	block, name := "", ""
	for line := range strings.Lines(text) {
		line = nftComment.ReplaceAllString(line, "")
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "}" || slices.Contains([]string{"table", "comment", "type", "flags", "elements"}, words[0]), block != "chain" && words[0] == "counter":
		case words[0] == "set" || words[0] == "map" || words[0] == "chain":
			block, name = words[0], words[1]
			if block == "chain" {
				n.chains[name] = [][]string{}
			} else {
				n.sets[name] = []nftElement{}
			}
		case block == "chain":
			n.chains[name] = append(n.chains[name], words)
		default:
			key, value, _ := strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), ","), " : ")
			n.sets[name] = append(n.sets[name], nftElement{strings.TrimSuffix(key, " counter"), strings.Fields(value)})
		}
	}
	e, _ := n.chain("postrouting")
	return e
}

// chain is asked until a rule ends the way of the packet; false where it returns.
func (n nftTable) chain(chain string) (effect, bool) {
	rules, there := n.chains[chain]
	if !there {
		n.Fatalf("chain %s is not there", chain)
	}
	for _, words := range rules {
		verdict := n.verdict(words)
		if len(verdict) == 0 {
			continue
		}
		switch verdict[0] {
		case "return":
			return effect{verdict: policy.Keep}, false
		case "accept":
			return effect{verdict: policy.Keep}, true
		case "drop":
			return effect{verdict: policy.Drop}, true
		case "masquerade", "snat":
			return n.translation(verdict), true
		case "goto", "jump":
			if e, done := n.chain(verdict[1]); done || verdict[0] == "goto" {
				return e, done
			}
		default:
			n.Fatalf("a verdict that is not known: %q", words)
		}
	}
	return effect{verdict: policy.Keep}, false
}

// verdict is what a rule does with the packet, nothing where it is not about it.
func (n nftTable) verdict(words []string) []string {
	for len(words) > 0 {
		switch words[0] {
		case "counter":
			words = words[1:]
			continue
		case "return", "accept", "drop", "goto", "jump", "masquerade":
			return words
		case "snat":
			return n.snat(words)
		}
		if len(words) > 2 && words[0] == map[bool]string{true: "ip6", false: "ip"}[n.packet.Destination.Is4()] {
			return nil // the header of the other family
		}
		have, size := n.field(words)
		words = words[size:]
		if words[0] == "vmap" {
			value, _ := n.look(words[1], have)
			return value
		}
		operation := "=="
		if slices.Contains([]string{"==", "!=", "<"}, words[0]) {
			operation, words = words[0], words[1:]
		}
		if n.compare(have, operation, words[0]) == (operation == "!=") {
			return nil
		}
		words = words[1:]
	}
	return nil
}

// field is what a rule compares, as text, and how many words it takes.
func (n nftTable) field(words []string) (have string, size int) {
	begins := func(text string) bool {
		size = len(strings.Fields(text))
		return strings.HasPrefix(strings.Join(words, " ")+" ", text+" ")
	}
	address := func(addr netip.Addr) string {
		if words[2] != "&" {
			return addr.String()
		}
		size = 4
		bytes, mask := addr.AsSlice(), netip.MustParseAddr(words[3]).AsSlice()
		for i := range bytes {
			bytes[i] &= mask[i]
		}
		addr, _ = netip.AddrFromSlice(bytes)
		return addr.String()
	}
	switch {
	case begins("meta nfproto"):
		return map[bool]string{true: "ipv4", false: "ipv6"}[n.packet.Destination.Is4()], size
	case begins("meta l4proto"):
		return n.protocol, size
	case begins("ip saddr"), begins("ip6 saddr"):
		return address(n.packet.Source), size
	case begins("ip daddr"), begins("ip6 daddr"):
		return address(n.packet.Destination), size
	case begins("oifname"):
		return strconv.Quote(n.packet.Output), size
	case begins("fib daddr type"):
		return map[bool]string{true: "local", false: "unicast"}[n.packet.Local], size
	case begins("numgen random mod"):
		count, err := strconv.Atoi(words[3])
		if err != nil {
			n.Fatal(err)
		}
		return strconv.Itoa(n.luck.IntN(count)), size + 1
	}
	n.Fatalf("words that are not known: %q", words)
	return "", 0
}

// compare reports whether a field has a value, or is in a set, or is below a number.
func (n nftTable) compare(have, operation, want string) bool {
	switch {
	case operation == "<":
		number, err1 := strconv.Atoi(have)
		limit, err2 := strconv.Atoi(want)
		if err1 != nil || err2 != nil {
			n.Fatalf("%s < %s", have, want)
		}
		return number < limit
	case strings.HasPrefix(want, "@"):
		_, found := n.look(want, have)
		return found
	case strings.HasPrefix(want, `"`):
		start, wild := strings.CutSuffix(want, `*"`)
		return have == want || wild && strings.HasPrefix(have, start)
	}
	return covers(want, have)
}

// look looks a field up in a set or a map.
func (n nftTable) look(name, have string) (value []string, found bool) {
	elements, there := n.sets[strings.TrimPrefix(name, "@")]
	if !there {
		n.Fatalf("%s is not there", name)
	}
	for _, e := range elements {
		if covers(e.key, have) {
			return e.value, true
		}
	}
	return nil, false
}

// covers reads a word, an address, a prefix or a range of addresses.
func covers(key, have string) bool {
	addr, err := netip.ParseAddr(have)
	if err != nil || key == have {
		return key == have
	}
	if prefix, err := netip.ParsePrefix(key); err == nil {
		return prefix.Contains(addr)
	}
	first, last, ranged := strings.Cut(key, "-")
	if !ranged {
		last = first
	}
	from, err1 := netip.ParseAddr(first)
	to, err2 := netip.ParseAddr(last)
	return err1 == nil && err2 == nil && from.Compare(addr) <= 0 && addr.Compare(to) <= 0
}

// snat replaces a look-up in a map by what it finds; a rule that finds nothing is not about the packet.
func (n nftTable) snat(words []string) []string {
	at := slices.Index(words, "map")
	if at < 0 {
		return words
	}
	to := slices.Index(words, "to") + 1
	have, _ := n.field(words[to:])
	name, ports, _ := strings.Cut(words[at+1], ":")
	value, found := n.look(name, have)
	switch {
	case !found:
		return nil
	case ports != "":
		value = []string{"[" + value[0] + "]:" + ports}
	}
	return slices.Concat(words[:to], value, words[at+2:])
}

// translation reads "masquerade [to :PORTS] [fully-random]" and "snat [ip] to ADDRESS[:PORTS] [fully-random]".
func (n nftTable) translation(words []string) (e effect) {
	e.verdict = policy.Masquerade
	if words[0] == "snat" {
		e.verdict = policy.Translate
	}
	for i := 1; i < len(words); i++ {
		switch words[i] {
		case "ip", "ip6":
		case "fully-random":
			e.random = true
		case "to":
			i++
			if e.verdict == policy.Masquerade {
				e.ports = strings.TrimPrefix(words[i], ":")
			} else {
				e.address, e.ports = withPorts(n.T, words[i])
			}
		default:
			n.Fatalf("a word that is not known: %q", words)
		}
	}
	return e
}
