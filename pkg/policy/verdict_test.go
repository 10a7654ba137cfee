package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// parse reads "10.0.0.0/8 !10.1.0.0/16": prefixes that keep the address, and with a mark, those that do not.
func parse(text string) Policy {
	p := Policy{Settings: Settings{IPv6: true}}
	for word := range strings.FieldsSeq(text) {
		if cidr, exception := strings.CutPrefix(word, "!"); exception {
			p.Masquerade = append(p.Masquerade, netip.MustParsePrefix(cidr))
			continue
		}
		p.NonMasquerade = append(p.NonMasquerade, netip.MustParsePrefix(word))
	}
	return p
}

// short is the reverse, for the destinations of one family.
func short(destinations []Destination) string {
	var words []string
	for _, d := range destinations {
		words = append(words, map[Verdict]string{Keep: "", Masquerade: "!"}[d.Verdict]+d.Prefix.String())
	}
	return strings.Join(words, " ")
}

func TestDestinations(t *testing.T) {
	for _, c := range []struct {
		name, lists string
		family      Family
		want        string
	}{
		{"none", "", IPv4, "169.254.0.0/16"},
		{"none of IPv6", "10.0.0.0/8", IPv6, "fe80::/10"},
		{"the user's order", "192.168.0.0/16 10.1.0.0/16 10.0.0.0/8", IPv4, "169.254.0.0/16 192.168.0.0/16 10.1.0.0/16 10.0.0.0/8"},
		{"covered after covering", "10.0.0.0/8 10.1.0.0/16", IPv4, "169.254.0.0/16 10.0.0.0/8 10.1.0.0/16"},
		{"duplicates", "10.0.0.0/8 fd00::/8 10.0.0.0/8", IPv4, "169.254.0.0/16 10.0.0.0/8"},
		{"one exception", "10.0.0.0/8 !10.1.0.0/16", IPv4, "169.254.0.0/16 !10.1.0.0/16 10.0.0.0/8"},
		{"an exception outside", "10.0.0.0/8 !11.0.0.0/8", IPv4, "169.254.0.0/16 10.0.0.0/8 !11.0.0.0/8"},
		{"an exception around", "10.1.0.0/16 !10.0.0.0/8", IPv4, "169.254.0.0/16 10.1.0.0/16 !10.0.0.0/8"},
		{
			"three deep", "10.0.0.0/8 172.16.0.0/12 10.1.2.0/24 !10.1.0.0/16 !10.1.2.3/32", IPv4,
			"169.254.0.0/16 !10.1.2.3/32 10.1.2.0/24 !10.1.0.0/16 10.0.0.0/8 172.16.0.0/12",
		},
		{"inside link-local", "10.0.0.0/8 !169.254.169.254/32", IPv4, "!169.254.169.254/32 169.254.0.0/16 10.0.0.0/8"},
		{"IPv6", "fd00::/8 10.0.0.0/8 !fd00:1::/32", IPv6, "fe80::/10 !fd00:1::/32 fd00::/8"},
		{"all addresses", "0.0.0.0/0 !10.0.0.0/8", IPv4, "169.254.0.0/16 !10.0.0.0/8 0.0.0.0/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := short(parse(c.lists).Destinations(c.family)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestMasqLinkLocalIsPerFamily(t *testing.T) {
	p := parse("10.0.0.0/8 fd00::/8")
	p.MasqLinkLocal = true
	if got := short(p.Destinations(IPv4)) + ", " + short(p.Destinations(IPv6)); got != "10.0.0.0/8, fe80::/10 fd00::/8" {
		t.Error(got)
	}
	p.MasqLinkLocal, p.MasqLinkLocalIPv6 = false, true
	if got := short(p.Destinations(IPv4)) + ", " + short(p.Destinations(IPv6)); got != "169.254.0.0/16 10.0.0.0/8, fd00::/8" {
		t.Error(got)
	}
}

// firstMatch is how the kernel reads the list, longest how the documentation explains it.
func firstMatch(destinations []Destination, addr netip.Addr) Verdict {
	for _, d := range destinations {
		if d.Prefix.Contains(addr) {
			return d.Verdict
		}
	}
	return Masquerade
}

func longest(p Policy, f Family, addr netip.Addr) Verdict {
	verdict, bits := Masquerade, -1
	look := func(prefixes []netip.Prefix, v Verdict) {
		for _, prefix := range prefixes {
			if prefix.Contains(addr) && prefix.Bits() > bits {
				verdict, bits = v, prefix.Bits()
			}
		}
	}
	look([]netip.Prefix{f.LinkLocal()}, Keep)
	look(p.NonMasquerade, Keep)
	look(p.Masquerade, Masquerade)
	return verdict
}

// randomPolicy nests prefixes deeply, by drawing addresses from few bits. No prefix is in both lists, as the reader of the file
// sees to.
func randomPolicy(r *rand.Rand, f Family) Policy {
	p, seen := Policy{}, map[netip.Prefix]bool{f.LinkLocal(): true}
	for range r.IntN(24) {
		prefix, _ := randomAddr(r, f).Prefix(r.IntN(f.Bits() + 1))
		if seen[prefix] {
			continue
		}
		seen[prefix] = true
		if r.IntN(2) == 0 {
			p.Masquerade = append(p.Masquerade, prefix)
		} else {
			p.NonMasquerade = append(p.NonMasquerade, prefix)
		}
	}
	return p
}

func randomAddr(r *rand.Rand, f Family) netip.Addr {
	base := []netip.Addr{f.LinkLocal().Addr(), f.Multicast().Addr(), f.defaultNonMasquerade()[0].Addr()}[r.IntN(3)].AsSlice()
	for i := range base {
		base[i] ^= byte(r.IntN(2)) << r.IntN(8) * byte(r.IntN(2))
	}
	addr, _ := netip.AddrFromSlice(base)
	return addr
}

// TestFirstMatchIsLongestMatch compares three answers for random policies: the list read as the kernel does, the naive longest
// match, and the look-up of explain.
func TestFirstMatchIsLongestMatch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	verdicts := map[Verdict]int{}
	for range 3000 {
		f := []Family{IPv4, IPv6}[r.IntN(2)]
		p := randomPolicy(r, f)
		destinations, matcher := p.Destinations(f), p.Matcher(f)
		for _, addr := range edges(r, p, f) {
			want := longest(p, f, addr)
			verdicts[want]++
			match, _ := matcher.Match(addr)
			if got := match.Verdict; got != want || firstMatch(destinations, addr) != want {
				t.Fatalf("%s: the list says %s, the matcher %s, the longest prefix %s\n%s\nfrom %v and %v", addr,
					firstMatch(destinations, addr), got, want, short(destinations), p.NonMasquerade, p.Masquerade)
			}
		}
	}
	if verdicts[Keep] < 1000 || verdicts[Masquerade] < 1000 {
		t.Errorf("the addresses are not worth much: %v", verdicts)
	}
}

// edges are the first address of each prefix, its neighbours, and some at random.
func edges(r *rand.Rand, p Policy, f Family) []netip.Addr {
	var all []netip.Addr
	for _, prefix := range slices.Concat(p.NonMasquerade, p.Masquerade) {
		all = append(all, prefix.Addr(), prefix.Addr().Prev(), prefix.Addr().Next())
	}
	for range 20 {
		all = append(all, randomAddr(r, f))
	}
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() })
}

// TestOrderIsStable: the same policy gives the same list, and without exceptions the user's.
func TestOrderIsStable(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		p := randomPolicy(r, IPv4)
		if first, second := fmt.Sprint(p.Destinations(IPv4)), fmt.Sprint(p.Destinations(IPv4)); first != second {
			t.Fatalf("%s and %s", first, second)
		}
		p.Masquerade = nil
		if got := p.Destinations(IPv4)[1:]; len(got) != len(p.NonMasquerade) || slices.ContainsFunc(got, func(d Destination) bool { return d.Verdict != Keep }) ||
			!slices.EqualFunc(got, p.NonMasquerade, func(d Destination, prefix netip.Prefix) bool { return d.Prefix == prefix }) {
			t.Fatalf("%v became %v", p.NonMasquerade, got)
		}
	}
}
