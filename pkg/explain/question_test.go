package explain

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

func TestParse(t *testing.T) {
	addr := netip.MustParseAddr
	for _, test := range []struct {
		src, dst, proto string
		want            Question
	}{
		{"10.0.0.1", "192.0.2.7", "", Question{Source: addr("10.0.0.1"), Destination: addr("192.0.2.7")}},
		{"10.0.0.1", "192.0.2.7:443", "TCP", Question{Source: addr("10.0.0.1"), Destination: addr("192.0.2.7"), Port: 443, Protocol: "tcp"}},
		{"::ffff:10.0.0.1", "::ffff:192.0.2.7", "icmp", Question{Source: addr("10.0.0.1"), Destination: addr("192.0.2.7"), Protocol: "icmp"}},
		{"fd00::1", "2001:db8::7", "", Question{Source: addr("fd00::1"), Destination: addr("2001:db8::7")}},
		{"fd00::1", "[2001:db8::7]", "", Question{Source: addr("fd00::1"), Destination: addr("2001:db8::7")}},
		{"fd00::1", "[2001:db8::7]:53", "udp", Question{Source: addr("fd00::1"), Destination: addr("2001:db8::7"), Port: 53, Protocol: "udp"}},
		{"default/web-0", "192.0.2.7", "", Question{Pod: attachment.Pod{Namespace: "default", Name: "web-0"}, Destination: addr("192.0.2.7")}},
	} {
		if got, err := Parse(test.src, test.dst, test.proto); err != nil || got != test.want {
			t.Errorf("%s %s %s: %+v, %v", test.src, test.dst, test.proto, got, err)
		}
	}
}

// TestParseRefuses: the message names the flag.
func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ src, dst, proto, names string }{
		{"", "192.0.2.7", "", "--src"},
		{"10.0.0", "192.0.2.7", "", "--src"},
		{"/web", "192.0.2.7", "", "--src"},
		{"default/", "192.0.2.7", "", "--src"},
		{"10.0.0.0/8/1", "192.0.2.7", "", "--src"},
		{"fe80::1%eth0", "fd00::1", "", "--src"},
		{"10.0.0.1", "", "", "--dst"},
		{"10.0.0.1", "example.org", "", "--dst"},
		{"10.0.0.1", "192.0.2.7:0", "", "--dst"},
		{"10.0.0.1", "192.0.2.7:65536", "", "--dst"},
		{"10.0.0.1", "192.0.2.0/24", "", "--dst"},
		{"10.0.0.1", "2001:db8::7", "", "one family"},
		{"10.0.0.1", "192.0.2.7", "gre", "--proto"},
		{"10.0.0.1", "192.0.2.7:1", "icmp", "no ports"},
	} {
		if got, err := Parse(test.src, test.dst, test.proto); err == nil || !strings.Contains(err.Error(), test.names) {
			t.Errorf("%s %s %s: %+v, %v", test.src, test.dst, test.proto, got, err)
		}
	}
}
