package cnicache

import (
	"slices"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// FuzzParse reads files of any content and name: what is read is complete, and what is not may be any of its name's owners.
func FuzzParse(f *testing.F) {
	f.Add("n-a-eth0", []byte(v1("n", "a", pathHere, list("n", "ip-masq"))), []byte(list("n", "bridge")))
	f.Add("n-a-eth0", []byte(result(pathHere)), []byte(list("n", "ip-masq")))
	f.Add("my-net-a-b-eth0", []byte(v1("my-net", "a-b", "", "")[:50]), []byte(`{"name": "my-net"}`))
	f.Add("", []byte("null"), []byte("[]"))
	f.Fuzz(func(t *testing.T, name string, data, conflist []byte) {
		networks := map[string]network{}
		if n, ok := parseNetwork(conflist); ok {
			if n.name == "" {
				t.Errorf("a network without a name in %q", conflist)
			}
			networks[n.name] = n
		}
		entry, ok := parse(name, data, networks)
		if !ok {
			for _, o := range owners(name) {
				if whole := o.Network + "-" + o.ContainerID + "-" + o.IfName; whole != name {
					t.Errorf("owner %+v of %q", o, name)
				}
			}
			return
		}
		if entry.ContainerID == "" || entry.IfName == "" || !entry.ID().Valid() || entry.Masqueraded("") && len(entry.Addresses) == 0 {
			t.Errorf("read %+v", entry)
		}
		if !slices.Equal(entry.Addresses, attachment.Normalize(entry.Addresses)) {
			t.Errorf("addresses %v", entry.Addresses)
		}
		if again, _ := parse(name, data, networks); again.Masqueraded("") != entry.Masqueraded("") || again.Owner != entry.Owner {
			t.Errorf("read again as %+v, at first as %+v", again, entry)
		}
	})
}
