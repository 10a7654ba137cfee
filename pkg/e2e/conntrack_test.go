package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// others is how many connections that are not our pods' the table holds.
const others = 10000

// entry is a tracked connection of UDP: who calls, whom, and the address that the answer goes to.
type entry struct {
	src, dst, answered string
	zone               int
	port               int
}

// insert makes entries, in one process.
func (r *rig) insert(t *testing.T, all []entry) {
	t.Helper()
	var batch strings.Builder
	for _, e := range all {
		fmt.Fprintf(&batch, "-I -p udp -s %s -d %s -r %s -q %s --sport %d --dport 53 --reply-port-src 53 --reply-port-dst %d -t 600 -w %d\n",
			e.src, e.dst, e.dst, e.answered, e.port, e.port, e.zone)
	}
	r.TryCmd(t, netnstest.Cmd{Args: []string{"conntrack", "--load-file", "-"}, Stdin: batch.String()})
}

var (
	entrySource = regexp.MustCompile(`src=(\S+) dst=(\S+) sport=(\d+)`)
	entryZone   = regexp.MustCompile(`zone=(\d+)`)
)

// tracked lists the entries of both families that the table holds.
func (r *rig) tracked(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, family := range []string{"ipv4", "ipv6"} {
		for line := range strings.Lines(r.Run(t, "conntrack", "-L", "-f", family)) {
			m, zone := entrySource.FindStringSubmatch(line), entryZone.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			if zone == nil {
				zone = []string{"", "0"}
			}
			all = append(all, fmt.Sprintf("%s %s %s zone %s", m[1], m[2], m[3], zone[1]))
		}
	}
	slices.Sort(all)
	return all
}

func (e entry) String() string { return fmt.Sprintf("%s %s %d zone %d", e.src, e.dst, e.port, e.zone) }

// TestFlushIsExact: of ten thousand connections of others and every sort of our pods', exactly those go whose verdict changed.
func TestFlushIsExact(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack")
		p := r.attached(t, "a")
		own, own6 := p.Addrs[0].String(), p.Addrs[1].String()
		r.Write(t, "nonMasqueradeCIDRs: [10.0.0.0/8, 203.0.113.0/24, 192.0.2.1/32, 224.0.0.0/4]\n")
		r.Sync(t, "--enable-ipv6")
		changed := []entry{
			{own, "198.51.100.7", nodeAddress, 0, 2000},     // was masqueraded, is kept now
			{own, "198.51.100.7", nodeAddress, 7, 2001},     // the same in another zone
			{own, "203.0.113.7", own, 0, 2002},              // was kept, is masqueraded now
			{own6, "2001:db8:1::7", "2001:db8::1", 0, 2003}, // was masqueraded, is kept now
			{own6, "2001:db8:1::8", "2001:db8::1", 9, 2004}, // the same in another zone
			{own, "198.51.100.8", "192.0.2.1", 0, 2005},     // one more
		}
		stay := []entry{
			{own, "10.96.0.1", own, 0, 3000},                       // kept before and after
			{own, "192.0.2.77", nodeAddress, 0, 3001},              // masqueraded before and after
			{own, "198.51.100.9", own, 0, 3002},                    // carries what the old policy would not have given
			{own, "203.0.113.9", nodeAddress, 0, 3003},             // masqueraded by other software
			{own, nodeAddress, own, 0, 3004},                       // to the node itself, which no policy masquerades
			{own, "224.0.0.251", own, 0, 3005},                     // multicast, which no policy masquerades
			{"198.51.100.7", own, "198.51.100.7", 0, 3006},         // from outside to our pod
			{"10.244.77.77", "198.51.100.7", nodeAddress, 0, 3007}, // a pod that is not ours
			{own6, "2001:db8:2::7", "2001:db8::1", 0, 3008},        // masqueraded before and after
		}
		all := slices.Concat(changed, stay)
		for i := range others {
			all = append(all, entry{fmt.Sprintf("10.200.%d.%d", i/250, i%250+1), "198.51.100.7", nodeAddress, i % 3, 10000 + i})
		}
		r.insert(t, all)
		if got := len(r.tracked(t)); got != len(all) {
			t.Fatalf("%d entries, want %d", got, len(all))
		}
		r.Write(t, "nonMasqueradeCIDRs: [10.0.0.0/8, 198.51.100.0/24, '2001:db8:1::/48']\n")
		begin := time.Now()
		r.Sync(t, "--enable-ipv6")
		t.Logf("sync with flush of %d among %d: %s", len(changed), len(all), time.Since(begin).Round(time.Millisecond))
		var want []string
		for _, e := range all[len(changed):] {
			want = append(want, e.String())
		}
		slices.Sort(want)
		got := r.tracked(t)
		for _, e := range got {
			if _, stays := slices.BinarySearch(want, e); !stays {
				t.Errorf("is still there: %s", e)
			}
		}
		for _, e := range want {
			if _, is := slices.BinarySearch(got, e); !is {
				t.Errorf("is gone: %s", e)
			}
		}
	})
}

// TestFlushOfAFamilySwitchedOn: while IPv6 was off its connections kept the pod's address, and now they must not.
func TestFlushOfAFamilySwitchedOn(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		p := r.attached(t, "a")
		r.Sync(t)
		f := open(t, p.Pod, "udp", udpAt(r.Internet.IPv6))
		for i, want := range []string{p.Addrs[1].String(), "2001:db8::1", p.Addrs[1].String()} {
			r.Sync(t, fmt.Sprintf("--enable-ipv6=%v", i == 1))
			if got := f.seen(t); got != want {
				t.Errorf("step %d: seen as %s, want %s", i, got, want)
			}
		}
	})
}

// TestFlushRate: thousands of connections to end are ended with rests in between, which leave the table to traffic.
func TestFlushRate(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		netnstest.Require(t, "conntrack")
		p := r.attached(t, "a")
		r.Sync(t)
		const count = 5120
		var all []entry
		for i := range count {
			all = append(all, entry{p.Addrs[0].String(), "198.51.100.7", nodeAddress, 0, 10000 + i})
		}
		r.insert(t, all)
		r.Write(t, "nonMasqueradeCIDRs: [198.51.100.0/24]\n")
		begin := time.Now()
		r.Sync(t)
		if took := time.Since(begin); took < 200*time.Millisecond || took > patience {
			t.Errorf("%d connections ended in %s: not between the bound on the rate and all patience", count, took)
		}
		if got := r.tracked(t); len(got) != 0 {
			t.Errorf("%d are left", len(got))
		}
	})
}
