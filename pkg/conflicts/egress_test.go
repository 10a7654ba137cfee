package conflicts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestEgress holds every answer against packets, where the policy chooses an address for some destinations and leaves an interface
// out: a rule that gives another address is named where it stands ahead, and what leaves by that interface is nobody's concern.
func TestEgress(t *testing.T) {
	eachVariant(t, func(t *testing.T, s *scene) {
		outside, group, left := s.Internet.IPv4, s.Internet.AddAddr(t, "198.51.100.7"), s.Corp.AddAddr(t, "203.0.113.9")
		s.Run(t, "ip", "addr", "add", "198.18.0.1/32", "dev", "lo")
		q := s.query()
		q.Policy.NonMasquerade = prefixes("172.16.0.0/12")
		q.Policy.OutputInterfaces = policy.Interfaces{"!corp"}
		q.Policy.Egress = []policy.Egress{{Destinations: prefixes("198.51.100.0/24"), SourceAddresses: prefixes("198.18.0.0/15")}}
		own := s.pod.Addrs[0].String()
		for _, test := range []struct {
			name, rules string
			behind      bool
			want        []string // after "KIND table nat chain "
			seen        string   // by outside, group and left
		}{
			{name: "none", seen: "192.0.2.1 198.18.0.1 " + own},
			{name: "masquerading", rules: "-d 198.51.100.0/24 -j MASQUERADE", want: []string{"unknown: POSTROUTING rule 1"}, seen: "192.0.2.1 192.0.2.1 " + own},
			{name: "masquerading behind", rules: "-d 198.51.100.0/24 -j MASQUERADE", behind: true, seen: "192.0.2.1 198.18.0.1 " + own},
			{name: "accepting", rules: "-d 198.51.100.0/24 -j ACCEPT", want: []string{"unknown: POSTROUTING rule 1"}, seen: "192.0.2.1 " + own + " " + own},
			{name: "masquerading by an interface that is left out", rules: "-o corp -j MASQUERADE", seen: "192.0.2.1 198.18.0.1 10.99.0.1"},
			{name: "accepting by an interface that is left out", rules: "-o corp -j ACCEPT", seen: "192.0.2.1 198.18.0.1 " + own},
			{name: "accepting by another interface", rules: "-o internet -j ACCEPT", want: []string{"unknown: POSTROUTING rule 1"}, seen: own + " " + own + " " + own},
		} {
			t.Run(test.name, func(t *testing.T) {
				s.Run(t, string(s.kind), "-t", "nat", "-F", "POSTROUTING")
				s.forget(t)
				s.apply(t, q.Policy, addrs("198.18.0.1")...)
				if test.rules != "" {
					at := []string{string(s.kind), "-t", "nat", "-I", "POSTROUTING"}
					if test.behind {
						at[3] = "-A"
					}
					s.Run(t, append(at, strings.Fields(test.rules)...)...)
				}
				var want []string
				for _, w := range test.want {
					want = append(want, strings.Replace(w, ": ", ": "+string(s.kind)+" table nat chain ", 1))
				}
				if diff := cmp.Diff(want, brief(mustFind(t, s.Space, q))); diff != "" {
					t.Errorf("conflicts (-want +got):\n%s", diff)
				}
				var seen []string
				for _, to := range addrs(outside.String(), group.String(), left.String()) {
					got, err := s.pod.Seen("udp", to)
					if err != nil {
						t.Fatal(err)
					}
					seen = append(seen, fmt.Sprint(got.Addr()))
				}
				if got := strings.Join(seen, " "); got != test.seen {
					t.Errorf("seen as %s, want %s", got, test.seen)
				}
			})
		}
	})
}
