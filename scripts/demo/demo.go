package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

const (
	chain   = "IP-MASQ-AGENT"
	metrics = "127.0.0.1:9080"
)

// changed is the config after the update: the opposite verdict for both hosts.
const changed = `nonMasqueradeCIDRs:
  - 10.0.0.0/8
  - 192.0.2.0/24
masqueradeCIDRs:
  - 10.99.0.0/16
`

type demo struct {
	*stage
	backend string
	node    *netnstest.Node
	config  *netnstest.ConfigMap
	agent   *netnstest.Process
	network string
	pods    []*netnstest.Pod
}

var podNames = []string{"a", "b"}

func newDemo(s *stage, backend string) *demo {
	netnstest.Require(s, "cnitool", "bridge", "host-local")
	return &demo{stage: s, backend: backend}
}

func (d *demo) show() {
	d.makeNode()
	d.startAgent()
	d.attachPods()
	d.listPolicy()
	d.talk(policy{internet: masquerade, corp: keep})
	d.changeConfig()
	d.detachPods()
	d.stopAgent()
}

func (d *demo) makeNode() {
	d.headline("A node with two hosts outside, each a network namespace")
	d.node = netnstest.NewNode(d)
	say("node      %s: forwards for its pods, has no firewall rule yet", d.node.Name)
	say("internet  %s, sees the node as 192.0.2.1", d.node.Internet.IPv4)
	say("corp      %s, sees the node as 10.99.0.1", d.node.Corp.IPv4)
}

func (d *demo) startAgent() {
	d.headline("The agent starts with the example config, mounted as a ConfigMap")
	d.config = netnstest.NewConfigMap(d, "config", string(d.read("conf/ip-masq-agent.example")))
	args := []string{
		netnstest.Bin(d, "ip-masq-agent"), "run", "--config=" + d.config.Path,
		"--state-dir=" + d.node.StateDir, "--data-dir=" + d.node.DataDir,
		"--backend=" + d.backend, "--metrics-bind-address=" + metrics,
	}
	say("$ %s &", strings.Join(args, " \\\n       "))
	d.agent = d.node.Start(d, netnstest.Cmd{Args: args})
	d.awaitReady()
	say("It is ready: the rules were read back from the kernel.")
}

func (d *demo) attachPods() {
	d.headline("Two pods, attached by cnitool with conf/10-bridge-ip-masq.conflist")
	d.network = d.node.Conflist(d, d.read("conf/10-bridge-ip-masq.conflist"), map[string]any{"backend": d.backend})
	for _, name := range podNames {
		pod := d.node.NewPod(d, name)
		say("$ cnitool add %s %s", d.network, pod.Path)
		pod.Addrs = d.addresses(d.cni("add", pod))
		say("pod %s has %s", name, pod.Addrs[0])
		d.pods = append(d.pods, pod)
	}
}

func (d *demo) changeConfig() {
	d.headline("The ConfigMap changes: both hosts get the other verdict")
	for line := range strings.Lines(changed) {
		say("%s", strings.TrimRight(line, "\n"))
	}
	d.config.Update(d, changed)
	start := time.Now()
	want := policy{internet: keep, corp: masquerade}
	for !d.inForce(want) && time.Since(start) < 5*time.Second {
		time.Sleep(20 * time.Millisecond)
	}
	say("")
	say("In force %d milliseconds after the swap of ..data.", time.Since(start).Milliseconds())
	d.listPolicy()
	d.talk(want)
}

func (d *demo) detachPods() {
	d.headline("The pods are deleted")
	for _, pod := range d.pods {
		say("$ cnitool del %s %s", d.network, pod.Path)
		d.cni("del", pod)
		pod.Remove()
	}
	d.nothingLeft()
}

func (d *demo) stopAgent() {
	d.headline("The agent is told to end")
	if code := d.agent.Stop(syscall.SIGTERM, 5*time.Second); code != 0 {
		d.Fatalf("the agent exited %d on SIGTERM, want 0:\n%s", code, d.agent.Output())
	}
	say("SIGTERM, exit 0. The rules would stay, for pods that still run.")
}

// cni runs cnitool and returns its result, which must be a good one.
func (d *demo) cni(verb string, pod *netnstest.Pod) string {
	r := d.node.CNI(d, verb, d.network, pod.Path)
	if r.Code != 0 {
		d.Fatalf("cnitool %s: exit %d\n%s%s", verb, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

func (d *demo) read(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		d.Fatalf("%v", err)
	}
	return data
}

func (d *demo) decode(data string, into any) {
	if err := json.Unmarshal([]byte(data), into); err != nil {
		d.Fatalf("%v in %s", err, data)
	}
}
