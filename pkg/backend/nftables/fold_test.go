package nftables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func TestFold(t *testing.T) {
	for _, test := range []struct {
		name, destinations, want string
	}{
		{"none", "", ""},
		{"one", "10.0.0.0/8", "10.0.0.0/8"},
		{"unsorted", "192.168.0.0/16 10.0.0.0/8", "10.0.0.0/8 192.168.0.0/16"},
		{"covered", "10.0.0.0/8 10.1.0.0/16 10.0.0.0/24", "10.0.0.0/8"},
		{"adjacent to a prefix", "10.0.0.0/9 10.128.0.0/9", "10.0.0.0/8"},
		{"adjacent to a range", "10.0.0.0/24 10.0.1.0/24 10.0.2.0/24", "10.0.0.0-10.0.2.255"},
		{"twice", "10.0.0.0/8 10.0.0.0/8", "10.0.0.0/8"},
		{"exception inside", "10.5.0.0/16! 10.0.0.0/8", "10.0.0.0-10.4.255.255 10.6.0.0-10.255.255.255"},
		{"exception at the beginning", "10.0.0.0/16! 10.0.0.0/8", "10.1.0.0-10.255.255.255"},
		{"exception at the end", "10.255.0.0/16! 10.0.0.0/8", "10.0.0.0-10.254.255.255"},
		{"exception in an exception", "10.5.1.0/24 10.5.0.0/16! 10.0.0.0/8", "10.0.0.0-10.4.255.255 10.5.1.0/24 10.6.0.0-10.255.255.255"},
		{"exception for one address", "10.0.0.1/32! 10.0.0.0/30", "10.0.0.0 10.0.0.2/31"},
		{"exception of everything that is covered", "10.0.0.0/9! 10.128.0.0/9! 10.0.0.0/8", ""},
		{"exception outside", "11.0.0.0/8! 10.0.0.0/8", "10.0.0.0/8"},
		{"exception between adjacent prefixes", "10.0.1.0/24! 10.0.0.0/24 10.0.2.0/24", "10.0.0.0/24 10.0.2.0/24"},
		{"exception behind a prefix that ends with it", "10.0.1.0/24! 10.0.0.0/23 10.0.2.0/24", "10.0.0.0/24 10.0.2.0/24"},
		{"first of equal prefixes counts", "10.0.0.0/8! 10.0.0.0/8", ""},
		{"everything", "0.0.0.0/0", "0.0.0.0/0"},
		{"everything but", "128.0.0.0/1! 0.0.0.0/0", "0.0.0.0/1 224.0.0.0/4"},
		{"the first address", "0.0.0.0/32", "0.0.0.0"},
		{"the last address", "255.255.255.255/32", "255.255.255.255"},
		{"up to the end, next to multicast", "240.0.0.0/4", "224.0.0.0/3"},
		{"exception at the very end", "255.255.255.255/32! 240.0.0.0/4", "224.0.0.0-255.255.255.254"},
		{"multicast is no exception", "224.1.0.0/16! 224.0.0.0/4!", ""},
		{"multicast in a wide exception", "192.0.0.0/2!", ""},
		{"IPv6", "fc00::/7 fd00::5/128!", "fc00::-fd00::4 fd00::6-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"all of IPv6", "::/0", "::/0"},
		{"the last of IPv6", "fe00::/8", "fe00::/7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, destinations := parseDestinations(t, test.destinations)
			want := strings.Fields(test.want)
			if !strings.Contains(test.want, "224.") && !strings.Contains(test.want, "0.0.0.0/0") && f == policy.IPv4 {
				want = insertMulticast(want)
			} else if f == policy.IPv6 && test.want != "::/0" && test.want != "fe00::/7" {
				want = append(want, "ff00::/8")
			}
			if got := texts(fold(f, destinations, true, -1, nil).keep); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func insertMulticast(want []string) []string {
	for i, text := range want {
		if strings.HasPrefix(text, "255.") {
			return append(append(append([]string{}, want[:i]...), "224.0.0.0/4"), want[i:]...)
		}
	}
	return append(want, "224.0.0.0/4")
}

func texts(members []member) []string {
	out := make([]string, len(members))
	for i, m := range members {
		out[i] = m.text(false)
	}
	return out
}

// parseDestinations reads prefixes; those with an exclamation mark are exceptions.
func parseDestinations(t *testing.T, text string) (policy.Family, []policy.Destination) {
	t.Helper()
	f := policy.IPv4
	var all []policy.Destination
	for _, word := range strings.Fields(text) {
		d := policy.Destination{Verdict: policy.Keep}
		if strings.HasSuffix(word, "!") {
			d.Verdict = policy.Masquerade
		}
		d.Prefix = netip.MustParsePrefix(strings.TrimSuffix(word, "!"))
		f = policy.FamilyOf(d.Prefix.Addr())
		all = append(all, d)
	}
	return f, all
}

// lookUp is the naive longest prefix match.
func naive(f policy.Family, destinations []policy.Destination, addr netip.Addr) bool {
	if f.Multicast().Contains(addr) {
		return true
	}
	best := policy.Destination{Verdict: policy.Masquerade}
	found := false
	for _, d := range destinations {
		if d.Prefix.Contains(addr) && (!found || d.Prefix.Bits() > best.Prefix.Bits()) {
			best, found = d, true
		}
	}
	return best.Verdict == policy.Keep
}

func keeps(members []member, addr netip.Addr) bool {
	for _, m := range members {
		if m.first.Compare(addr) <= 0 && addr.Compare(m.last) <= 0 {
			return true
		}
	}
	return false
}

// checkFold compares the fold with the naive match at every edge of either, and the form of the fold.
func checkFold(t *testing.T, f policy.Family, destinations []policy.Destination) {
	t.Helper()
	members := fold(f, destinations, true, -1, nil).keep
	for i, m := range members {
		if m.last.Less(m.first) || i > 0 && !members[i-1].last.Next().Less(m.first) {
			t.Fatalf("%v: not sorted, disjoint and apart: %v", destinations, texts(members))
		}
	}
	try := func(addr netip.Addr) {
		for _, a := range []netip.Addr{addr.Prev(), addr, addr.Next()} {
			if a.IsValid() && keeps(members, a) != naive(f, destinations, a) {
				t.Fatalf("%v: wrong for %s: %v", destinations, a, texts(members))
			}
		}
	}
	for _, d := range destinations {
		try(d.Prefix.Addr())
		try(last(d.Prefix))
	}
	for _, m := range members {
		try(m.first)
		try(m.last)
	}
}

// FuzzFold reads destinations out of bytes: in a small corner of the address space, so that they meet.
func FuzzFold(f *testing.F) {
	f.Add([]byte{0, 8, 1, 16, 2, 255}, false)
	f.Add([]byte{255, 31, 240, 4, 224, 132}, true)
	f.Fuzz(func(t *testing.T, data []byte, ipv6 bool) {
		family, base := policy.IPv4, [16]byte{}
		if ipv6 {
			family = policy.IPv6
		}
		var destinations []policy.Destination
		seen := map[netip.Prefix]bool{}
		for ; len(data) >= 2 && len(destinations) < 60; data = data[2:] {
			base[0], base[family.Bits()/8-1] = data[0]&0xf1, data[0]
			addr, _ := netip.AddrFromSlice(base[:family.Bits()/8])
			bits := int(data[1]&0x7f) * family.Bits() / 127
			d := policy.Destination{Prefix: netip.PrefixFrom(addr, bits).Masked(), Verdict: policy.Keep}
			if data[1] >= 0x80 {
				d.Verdict = policy.Masquerade
			}
			if !seen[d.Prefix] {
				seen[d.Prefix] = true
				destinations = append(destinations, d)
			}
		}
		checkFold(t, family, destinations)
	})
}

func TestFoldAgainstNaive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var destinations []policy.Destination
		seen := map[netip.Prefix]bool{}
		for range random.IntN(20) {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(4)), byte(random.IntN(256))})
			d := policy.Destination{Prefix: netip.PrefixFrom(addr, 20+random.IntN(13)).Masked(), Verdict: policy.Keep}
			if random.IntN(3) == 0 {
				d.Verdict = policy.Masquerade
			}
			if !seen[d.Prefix] {
				seen[d.Prefix] = true
				destinations = append(destinations, d)
			}
		}
		checkFold(t, policy.IPv4, destinations)
	}
}

func TestFoldIsFast(t *testing.T) {
	destinations := randomDestinations(100_000)
	start := time.Now()
	n := len(fold(policy.IPv4, destinations, true, countLimit, nil).keep)
	if took := time.Since(start); took > netnstest.Limit(2*time.Second) {
		t.Errorf("100,000 prefixes took %v", took)
	} else {
		t.Logf("%d ranges in %v", n, took)
	}
}

// randomDestinations are n different prefixes that do not meet much.
func randomDestinations(n int) []policy.Destination {
	random := rand.New(rand.NewPCG(3, 4))
	seen := map[netip.Prefix]bool{}
	all := make([]policy.Destination, 0, n)
	for len(all) < n {
		addr := netip.AddrFrom4([4]byte{byte(1 + random.IntN(222)), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
		d := policy.Destination{Prefix: netip.PrefixFrom(addr, 18+random.IntN(15)).Masked(), Verdict: policy.Keep}
		if !seen[d.Prefix] {
			seen[d.Prefix] = true
			all = append(all, d)
		}
	}
	return all
}

func TestLast(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.255.255.255", "10.1.2.3/32": "10.1.2.3", "0.0.0.0/0": "255.255.255.255", "10.0.0.0/13": "10.7.255.255",
		"::/0": "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::/10": "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		if got := fmt.Sprint(last(netip.MustParsePrefix(text))); got != want {
			t.Errorf("last of %s: %s, want %s", text, got, want)
		}
	}
}
