package attachment

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
)

func sample(container string, addresses ...string) Attachment {
	a := Attachment{Owner: Owner{"pods", container, "eth0"}, NetNS: NetNS{Path: "/run/netns/x", Device: 4, Inode: 42}}
	for _, address := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(address))
	}
	return a
}

func TestStoreRoundTrip(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "made", "on", "demand")}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("an absent directory lists %v, %v", all, err)
	}
	for _, container := range odd {
		want := sample(container, "10.0.0.1", "fd00::1")
		want.Network, want.IfName = container, container
		want.Owner = valid(want.Owner)
		if err := s.Put(want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(want.ID()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("put %+v, got %+v, %v", want, got, err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != len(odd) {
		t.Errorf("%d of %d records, %v", len(all), len(odd), err)
	}
	for _, a := range all {
		if err := errors.Join(s.Delete(a.ID()), s.Delete(a.ID())); err != nil {
			t.Errorf("delete twice: %v", err)
		}
	}
	if entries, _ := os.ReadDir(s.Dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}

// valid keeps what JSON can carry.
func valid(o Owner) Owner {
	return Owner{strings.ToValidUTF8(o.Network, "?"), strings.ToValidUTF8(o.ContainerID, "?"), strings.ToValidUTF8(o.IfName, "?")}
}

func TestStoreReplaces(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for _, address := range []string{"10.0.0.1", "10.0.0.2"} {
		if err := s.Put(sample("c", address)); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Addresses[0].String() != "10.0.0.2" {
		t.Errorf("%v, %v", all, err)
	}
}

// TestStoreListGoesOn: broken records come back in the error, whatever is no record is left alone, and the rest is listed.
func TestStoreListGoesOn(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	good, broken, moved, other := sample("good", "10.0.0.1"), sample("broken"), sample("moved"), sample("other", "10.0.0.3")
	if err := errors.Join(s.Put(good), s.Put(other)); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(broken.ID())+".json", `{"network":"po`)
	write(string(moved.ID())+".json", `{"network":"pods","containerID":"somebody else","ifName":"eth0"}`)
	write("."+string(good.ID())+".json.tmp-1", "{")
	write("README", "no record")
	write("short.json", "{")
	all, err := s.List()
	if len(all) != 2 {
		t.Errorf("listed %v", all)
	}
	for _, id := range []ID{broken.ID(), moved.ID()} {
		if err == nil || !strings.Contains(err.Error(), string(id)) {
			t.Errorf("the error does not name %s: %v", id, err)
		}
	}
	if strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("want two problems, got\n%v", err)
	}
}

// TestSetAside: an unreadable record gets a name that no program reads, and what killed writes left goes.
func TestSetAside(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	good, broken := sample("good", "10.0.0.1"), sample("broken")
	if err := s.Put(good); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{string(broken.ID()) + ".json": "{", atomicfile.TempPrefix + "1": "{"} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sentences, err := s.SetAside()
	if err != nil || len(sentences) != 1 || !strings.Contains(sentences[0], string(broken.ID())) {
		t.Errorf("says %q, %v", sentences, err)
	}
	var left []string
	entries, _ := os.ReadDir(s.Dir)
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	slices.Sort(left)
	want := []string{string(broken.ID()) + ".json.unreadable", string(good.ID()) + ".json"}
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("left %v, want %v", left, want)
	}
}

func TestStoreErrors(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	if _, err := s.Get(sample("absent").ID()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Dir = file
	if err := s.Put(sample("c")); err == nil {
		t.Error("put into a file")
	}
	if _, err := s.List(); err == nil {
		t.Error("listed a file")
	}
}

func TestNormalize(t *testing.T) {
	in := []string{"fe80::1%eth0", "10.0.0.2", "::ffff:10.0.0.1", "10.0.0.2", "fd00::1"}
	a := sample("c", in...)
	got := Normalize(a.Addresses)
	want := sample("c", "10.0.0.1", "10.0.0.2", "fd00::1", "fe80::1").Addresses
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v became %v, want %v", in, got, want)
	}
	a.Addresses = got[:2]
	if !a.Has(policy.IPv4) || a.Has(policy.IPv6) {
		t.Errorf("families of %v", a.Addresses)
	}
}

// TestRecordOfAnnotations: what annotations led to is kept as it is here, and absent where a pod has none, as in records of former releases.
func TestRecordOfAnnotations(t *testing.T) {
	store := Store{Dir: t.TempDir()}
	usual := Attachment{Owner: Owner{Network: "n", ContainerID: "usual", IfName: "eth0"}, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.2")}}
	chosen := usual
	chosen.ContainerID = "chosen"
	chosen.SourceAddresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8::7/128")}
	chosen.Refused = []string{"ip-masq-agent/masquerade"}
	chosen.Asked = Asked{Annotations: map[string]string{"secret": "of the pod's author"}}
	for want, a := range map[string]Attachment{
		`{"version":1,"network":"n","containerID":"usual","ifName":"eth0","addresses":["10.1.0.2"]}`:                                                                                                         usual,
		`{"version":1,"network":"n","containerID":"chosen","ifName":"eth0","addresses":["10.1.0.2"],"sourceAddresses":["192.0.2.0/28","2001:db8::7/128"],"refusedAnnotations":["ip-masq-agent/masquerade"]}`: chosen,
	} {
		if err := store.Put(a); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(store.path(a.ID()))
		if err != nil || string(data) != want {
			t.Errorf("%s, %v\nwant %s", data, err, want)
		}
		got, err := store.Get(a.ID())
		if err != nil || !slices.Equal(got.SourceAddresses, a.SourceAddresses) || !slices.Equal(got.Refused, a.Refused) || got.Asked.Annotations != nil {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
