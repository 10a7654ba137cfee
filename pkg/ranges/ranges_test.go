package ranges

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

func TestConflists(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-bridge.conflist": `{"name":"n","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00:244::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}},{"type":"ip-masq"}]}`,
		"20-old.conf":        `{"name":"o","type":"ptp","ipam":{"type":"host-local","subnet":"10.9.0.5/16"}}`,
		"30-calico.conflist": `{"plugins":[{"type":"calico","ipam":{"type":"calico-ipam","ipv4_pools":["10.77.0.0/16","named-pool"]}}]}`,
		"README":             `{"subnet":"10.1.0.0/16"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := inConflists(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range found {
		got = append(got, strings.ReplaceAll(fmt.Sprint(r.Prefix, " ", r.Name), dir, "DIR"))
	}
	want := []string{
		"10.244.1.0/24 pod range of DIR/10-bridge.conflist",
		"fd00:244::/64 pod range of DIR/10-bridge.conflist",
		"10.9.0.0/16 pod range of DIR/20-old.conf",
		"10.77.0.0/16 pod range of DIR/30-calico.conflist",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A list that is being rewritten is said, and keeps nothing else from being found.
func TestBrokenConflist(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"10-half.conflist": `{"plugins":[`, "20-good.conf": `{"ipam":{"subnet":"10.9.0.0/16"}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := inConflists(dir)
	if err == nil || !strings.Contains(err.Error(), "10-half.conflist") {
		t.Errorf("the error is %v", err)
	}
	if len(found) != 1 || found[0].Prefix != netip.MustParsePrefix("10.9.0.0/16") {
		t.Errorf("found %v", found)
	}
}

func TestRoutes(t *testing.T) {
	s := netnstest.NewSpace(t, "node")
	for _, command := range []string{
		"link add eth0 type veth peer name outside", "link set eth0 up", "link set outside up",
		"address add 172.18.0.2/16 dev eth0", "address add fd18::2/64 dev eth0 nodad",
		"route add default via 172.18.0.1", "route add 203.0.113.0/24 via 172.18.0.1",
		"route add 10.244.2.0/24 via 172.18.0.3", "route add 10.244.3.0/24 dev outside", "route add 10.244.1.7/32 dev outside",
		"route add blackhole 10.99.0.0/16",
	} {
		s.Run(t, append([]string{"ip"}, strings.Fields(command)...)...)
	}
	var found []config.Range
	err := s.Do(func() (err error) {
		found, err = inRoutes()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range found {
		got[r.Prefix.String()] = r.Name
	}
	want := map[string]string{
		"172.18.0.0/16": "network of eth0",
		"fd18::/64":     "network of eth0",
		"10.244.2.0/24": "network behind 172.18.0.3, which is no default gateway",
		"10.244.3.0/24": "network of outside",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
