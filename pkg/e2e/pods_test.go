package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// nodeAddress is what the world sees of a masqueraded pod.
const nodeAddress = "192.0.2.1"

// pod is a pod with an identity.
type pod struct {
	*netnstest.Pod
	attachment.Owner
}

// network is the one that pods are in where a test does not say otherwise.
const network = "pods"

// newPod makes a pod that no plugin has seen.
func (r *rig) newPod(t *testing.T, name string) *pod {
	t.Helper()
	return &pod{r.AddPod(t, name), attachment.Owner{Network: network, ContainerID: name, IfName: "eth0"}}
}

// attached makes a pod and attaches it.
func (r *rig) attached(t *testing.T, name string) *pod {
	t.Helper()
	p := r.newPod(t, name)
	r.add(t, p)
	return p
}

func (r *rig) add(t *testing.T, p *pod) {
	t.Helper()
	if got := r.plugin(t, "ADD", p); got.Code != 0 {
		t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
	}
}

// plugin calls our plugin as a runtime would, with keys on top of the entry.
func (r *rig) plugin(t *testing.T, verb string, p *pod, keys ...string) netnstest.Result {
	t.Helper()
	stdin := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "type": "ip-masq", "stateDir": %q, "dataDir": %q, "backend": %q, "prevResult": %s%s}`,
		p.Network, r.StateDir, r.DataDir, r.Choice, p.result(), strings.Join(append([]string{""}, keys...), ", "))
	return r.TryCmd(t, netnstest.Cmd{Args: []string{testkit.Program("ip-masq")}, Stdin: stdin, Env: []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.ContainerID, "CNI_IFNAME=" + p.IfName, "CNI_NETNS=" + p.Path, "CNI_PATH=" + testkit.Built(),
	}})
}

// result is what a main plugin would print.
func (p *pod) result() string {
	var ips []string
	for _, a := range p.Addrs {
		ips = append(ips, fmt.Sprintf(`{"address": "%s/%d", "interface": 0}`, a, a.BitLen()))
	}
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "interfaces": [{"name": %q, "sandbox": %q}], "ips": [%s]}`, p.IfName, p.Path, strings.Join(ips, ", "))
}

// cache writes the runtime's entry of a pod, as libcni does after the last plugin of the list, with keys on top.
func (r *rig) cache(t *testing.T, p *pod, keys ...string) string {
	t.Helper()
	config, err := json.Marshal([]byte(conflist(p.Network, "")))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"kind": "cniCacheV1", "containerId": %q, "config": %s, "ifName": %q, "networkName": %q, "netns": %q, "result": %s%s}`,
		p.ContainerID, config, p.IfName, p.Network, p.Path, p.result(), strings.Join(append([]string{""}, keys...), ", "))
	return r.cacheText(t, p.Owner, text)
}

// cacheText writes any text as the entry of an owner.
func (r *rig) cacheText(t *testing.T, o attachment.Owner, text string) string {
	t.Helper()
	path := filepath.Join(r.CacheDir, "results", fmt.Sprintf("%s-%s-%s", o.Network, o.ContainerID, o.IfName))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, text)
	return path
}

// conflist is a network with a bridge, and with our entry if one is given.
func conflist(name, ours string) string {
	if ours != "" {
		ours = ", " + ours
	}
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.245.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}%s]}`, name, ours)
}

// plain is our entry without keys.
const plain = `{"type": "ip-masq"}`

// seenAs is the address under which the world sees a pod's next connection, or the reason why it does not.
func seenAs(p *netnstest.Pod, destination netip.Addr) string {
	seen, err := p.Seen("udp", destination)
	if err != nil {
		return err.Error()
	}
	return seen.Addr().String()
}

// wantSeen fails unless the internet sees the pod's next connection come from an address.
func (r *rig) wantSeen(t *testing.T, p *pod, want string) {
	t.Helper()
	if got := seenAs(p.Pod, r.Internet.IPv4); got != want {
		t.Errorf("%s is seen as %s, want %s\n%s", p.ContainerID, got, want, r.standing(t))
	}
}

// record is the path of the pod's attachment record.
func (r *rig) record(p *pod) string {
	return filepath.Join(r.StateDir, "attachments", string(p.ID())+".json")
}

func (r *rig) hasRecord(p *pod) bool { return exists(r.record(p)) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// hasRule reports whether the kernel holds a rule or an element of the pod's.
func (r *rig) hasRule(t *testing.T, p *pod) bool {
	t.Helper()
	return strings.Contains(r.standing(t), string(p.ID()))
}
