package install

import (
	"bufio"
	"os"
	"slices"
	"strings"
)

// direct are main plugins whose interfaces send past the node: its rules never see their packets.
var direct = []string{"macvlan", "macvtap", "host-device", "sriov", "ib-sriov-cni", "vlan", "ipoib"}

// bypasses names the plugin, or is empty where packets pass the node. Ipvlan in its modes L3 and L3S routes on the node.
func (e entry) bypasses() string {
	switch {
	case slices.Contains(direct, e.Type):
		return e.Type
	case e.Type == "ipvlan" && (e.Mode == "" || e.Mode == "l2"):
		return "ipvlan (mode l2)"
	}
	return ""
}

// masqueraders are network plugins that can masquerade outside of their list, by a daemon of their own. The list does not say
// whether they do, so the installer says what it would mean.
var masqueraders = map[string]string{
	"flannel":             "flanneld masquerades when it is started with --ip-masq, whatever the policy says: start it without, and give the plugin's \"delegate\" the key \"ipMasq\": false",
	"calico":              "Calico masquerades for every IP pool with natOutgoing: true, whatever the policy says: set it to false in the pools of pods",
	"cilium-cni":          "Cilium masquerades unless enable-ipv4-masquerade and enable-ipv6-masquerade are false in its ConfigMap, and with enable-bpf-masquerade it does so before any rule of the node is met",
	"kindnet":             "kindnetd masquerades what leaves the cluster by rules of its own, whatever the policy says",
	"antrea":              "Antrea masquerades what leaves the cluster unless noSNAT is true in antrea-agent.conf (which counts in the mode noEncap)",
	"aws-cni":             "the AWS VPC CNI translates to the node's address unless AWS_VPC_K8S_CNI_EXTERNALSNAT is true on aws-node",
	"azure-vnet":          "Azure's own ip-masq-agent may run on this node (azure-ip-masq-agent): take one of both away",
	"kube-router":         "kube-router masquerades what leaves the cluster unless it is started with --enable-pod-egress=false",
	"kube-ovn":            "Kube-OVN masquerades for subnets with natOutgoing: true, whatever the policy says: set it to false",
	"weave-net":           "Weave Net masquerades what leaves its network by rules of its own, whatever the policy says",
	"ovn-k8s-cni-overlay": "OVN-Kubernetes translates by itself, in OVN or (gateway mode local) by rules on the node, whatever the policy says",
}

// warnings are what an operator should know before the list names ip-masq.
func (n *network) warnings() []string {
	first := n.list.entries[0]
	if kind := first.bypasses(); kind != "" {
		return []string{n.path + ": the plugin will write no rule for pods of this network (--force)"}
	}
	text := n.mayMasquerade()
	if first.Type == "flannel" {
		text = first.flannel(text)
	}
	if text == "" {
		return nil
	}
	return []string{n.path + ": " + text}
}

// mayMasquerade is what to know of the network plugin. Kindnet and kube-router use the main plugins of others.
func (n *network) mayMasquerade() string {
	first := n.list.entries[0]
	switch {
	case stringOf(n.list.keys["name"]) == "kindnet":
		return masqueraders["kindnet"]
	case first.Bridge == "kube-bridge":
		return masqueraders["kube-router"]
	}
	return masqueraders[first.Type]
}

// flannel reads what flanneld says of itself, where the file can be seen from here. FLANNEL_IPMASQ=false means that somebody else
// is to masquerade, and then flannel's plugin tells its delegate to, unless the list says otherwise (flannel_linux.go, doCmdAdd).
func (e entry) flannel(otherwise string) string {
	file := e.Subnets
	if file == "" {
		file = flannelSubnets
	}
	switch masquerades, known := readFlannel(file); {
	case !known:
		return otherwise
	case masquerades:
		return file + " says FLANNEL_IPMASQ=true: " + otherwise
	case strings.Contains(string(e.Delegate), `"ipMasq"`):
		return ""
	}
	return file + " says FLANNEL_IPMASQ=false, with which flannel's plugin tells its bridge to masquerade everything by itself: " +
		"give the plugin's \"delegate\" the key \"ipMasq\": false"
}

// flannelSubnets is where flanneld writes what its plugin reads.
const flannelSubnets = "/run/flannel/subnet.env"

func readFlannel(file string) (masquerades, known bool) {
	f, err := os.Open(file)
	if err != nil {
		return false, false
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, found := strings.CutPrefix(strings.TrimSpace(lines.Text()), "FLANNEL_IPMASQ="); found {
			return strings.Trim(value, `"`) == "true", true
		}
	}
	return false, false
}
