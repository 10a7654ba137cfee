package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// TestStatusOfBypassingPods: a pod with a macvlan interface, attached by the plugin or known to the runtime alone, is listed as
// bypassing, and neither as attached nor as uncovered.
func TestStatusOfBypassingPods(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), conflist(network, plain))
		r.attached(t, "usual")
		direct := func(name string) *pod {
			p := &pod{r.NewPod(t, name), attachment.Owner{Network: network, ContainerID: name, IfName: "eth0"}}
			r.sh(t, "ip link add eth0 link internet netns "+p.Name+" type macvlan mode bridge")
			return p
		}
		first, second := direct("first"), direct("second")
		results := filepath.Join(r.CacheDir, "multus", "results") // multus is how pods get such interfaces
		for _, dir := range []string{results, filepath.Join(r.CacheDir, "results")} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		const result = `{"cniVersion": "1.0.0", "ips": [{"address": "192.0.2.5%d/24", "gateway": "192.0.2.2"}]}`
		if got := r.plugin(t, "ADD", first, `"prevResult": `+fmt.Sprintf(result, 0)); got.Code != 0 || !strings.Contains(got.Stderr, "macvlan") {
			t.Fatalf("ADD: %s%s", got.Stdout, got.Stderr)
		}
		overwrite(t, filepath.Join(results, network+"-second-eth0"), fmt.Sprintf(
			`{"kind": "cniCacheV1", "containerId": "second", "ifName": "eth0", "networkName": %q, "netns": %q, "result": `+result+`}`, network, second.Path, 1))
		r.Sync(t)
		s := r.status(t)
		if len(s.Pods.Bypassing) != 2 || len(s.Pods.Attached) != 1 || len(s.Pods.Uncovered) != 0 || len(s.Pods.OptedOut) != 0 || len(s.Drift) != 0 {
			t.Errorf("%+v, drift %+v", s.Pods, s.Drift)
		}
		for _, source := range []string{"192.0.2.50", "192.0.2.51"} {
			got := r.Agent(t, "explain", "--src", source, "--dst", r.Internet.IPv4.String(), "--output", "json").Stdout
			if !strings.Contains(got, `"bypasses-node"`) || !strings.Contains(got, `"verdict": "keep"`) {
				t.Errorf("explain says of %s: %s", source, got)
			}
		}
		if standing := r.standing(t); strings.Contains(standing, "192.0.2.5") {
			t.Errorf("a rule that no packet meets:\n%s", standing)
		}
	})
}
