package soak

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// newPod makes a pod that nobody knows yet. Addresses come round again after a while, as those of an IPAM plugin do.
func (r *run) newPod() *pod {
	r.serial++
	n := r.serial%200 + 1
	p := &pod{
		Owner: attachment.Owner{Network: network, ContainerID: fmt.Sprintf("pod%d", r.serial), IfName: "eth0"},
		addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, byte(n)})},
		netns: netnstest.NewSpace(r.T, "pod"),
	}
	if r.rng.IntN(3) > 0 {
		p.addrs = append(p.addrs, netip.MustParseAddr(fmt.Sprintf("fd00:244::%x", n)))
	}
	return p
}

// take draws a pod that nothing else happens to in this round; nil where there is none.
func (r *run) take(busy map[string]bool) *pod {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(r.model.pods)), func(name string) bool { return busy[name] })
	if len(names) == 0 {
		return nil
	}
	name := names[r.rng.IntN(len(names))]
	busy[name] = true
	return r.model.pods[name]
}

// call is a call of the plugin.
func (r *run) call(verb string, p *pod, keys ...string) netnstest.Cmd {
	stdin := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": %q, "type": "ip-masq", "stateDir": %q, "dataDir": %q, "prevResult": %s%s}`,
		network, r.StateDir, r.DataDir, p.result(), strings.Join(append([]string{""}, keys...), ", "))
	return netnstest.Cmd{Args: []string{testkit.Program("ip-masq")}, Stdin: stdin, Env: []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + p.ContainerID, "CNI_IFNAME=" + p.IfName, "CNI_NETNS=" + p.netns.Path, "CNI_PATH=" + testkit.Built(),
	}}
}

func (r *run) plugin(verb string, p *pod, keys ...string) netnstest.Result {
	return r.exec(r.call(verb, p, keys...))
}

// killed starts a call and ends it by SIGKILL. It returns the exit code, -1 where it was too slow.
func (r *run) killed(verb string, p *pod, after time.Duration) int {
	call := r.call(verb, p)
	// A background process takes no input here, so a shell feeds it; exec makes the shell the plugin.
	script := fmt.Sprintf("exec %s <<'EOF'\n%s\nEOF", call.Args[0], call.Stdin)
	process := r.Start(r.T, netnstest.Cmd{Args: []string{"sh", "-c", script}, Env: call.Env})
	time.Sleep(after)
	return process.Stop(syscall.SIGKILL, time.Second)
}

func (p *pod) result() string {
	var ips []string
	for _, a := range p.addrs {
		ips = append(ips, fmt.Sprintf(`{"address": "%s/%d", "interface": 0}`, a, a.BitLen()))
	}
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "interfaces": [{"name": %q, "sandbox": %q}], "ips": [%s]}`, p.IfName, p.netns.Path, strings.Join(ips, ", "))
}

func (r *run) cachePath(p *pod) string {
	return filepath.Join(r.CacheDir, "results", fmt.Sprintf("%s-%s-%s", p.Network, p.ContainerID, p.IfName))
}

// known makes a pod one of the model's, and writes the runtime's entry of it, in place as libcni does.
func (r *run) known(p *pod) {
	text := fmt.Sprintf(`{"kind": "cniCacheV1", "containerId": %q, "ifName": %q, "networkName": %q, "netns": %q, "result": %s}`,
		p.ContainerID, p.IfName, p.Network, p.netns.Path, p.result())
	if err := os.WriteFile(r.cachePath(p), []byte(text), 0o600); err != nil {
		r.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.model.pods[p.ContainerID] = p
}

// forget takes a pod out of the model, the cache and the machine.
func (r *run) forget(p *pod) {
	_ = os.Remove(r.cachePath(p))
	p.netns.Remove()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.model.pods, p.ContainerID)
}

// undo is what a runtime does after a failed ADD or DEL: DEL, once more when the node is at rest.
func (r *run) undo(p *pod) {
	if r.plugin("DEL", p).Code == 0 {
		r.forget(p)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.model.pods, p.ContainerID)
	r.broken[p.ContainerID] = p
}
