package attachment

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// FuzzDecode reads records of any content: what is read is the owner's own, normalised, and the same after one more turn
// through the disk.
func FuzzDecode(f *testing.F) {
	a := Attachment{
		Owner:     Owner{Network: "n", ContainerID: "a", IfName: "eth0"},
		NetNS:     NetNS{Path: "/run/netns/x", Device: 4, Inode: 1<<63 + 1},
		Addresses: []netip.Addr{netip.MustParseAddr("fd00::5"), netip.MustParseAddr("10.0.0.5")},
	}
	whole, err := json.Marshal(a)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"network": "n", "containerID": "a", "ifName": "eth0", "addresses": ["::ffff:10.0.0.5", "fe80::1%eth0", "10.0.0.5"]}`))
	f.Add([]byte(`{"network": "n", "containerID": "a", "ifName": "eth0", "addresses": ["", null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var about Owner
		_ = json.Unmarshal(data, &about)
		id := about.ID()
		got, err := decode(id, data)
		if err != nil {
			return
		}
		if got.ID() != id || !id.Valid() {
			t.Errorf("%s is a record of %s", id, got.ID())
		}
		for _, addr := range got.Addresses {
			if addr.Is4In6() || addr.Zone() != "" || !addr.IsValid() {
				t.Errorf("address %q", addr)
			}
		}
		if !slices.IsSortedFunc(got.Addresses, netip.Addr.Compare) {
			t.Errorf("addresses %v", got.Addresses)
		}
		s := Store{Dir: t.TempDir()}
		if err := s.Put(got); err != nil {
			t.Fatal(err)
		}
		if again, err := s.Get(id); err != nil || again.Owner != got.Owner || again.NetNS != got.NetNS || !slices.Equal(again.Addresses, got.Addresses) {
			t.Errorf("%+v became %+v, %v", got, again, err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, string(ID("0000000000000000"))+"0000000000000000.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if all, _ := s.List(); len(all) != 1 {
			t.Errorf("a record under another's name is listed: %+v", all)
		}
	})
}
