package conflicts

import (
	"slices"
	"strings"
)

// owner is software that is known to masquerade, by what its rules look like.
type owner struct {
	name    string
	wayOut  string
	chains  []string // beginnings of names
	comment string   // a part
	table   string   // a part, of nf_tables
	text    string   // a part of the rule
}

const unknownOwner = "unknown"

const (
	unknownWayOut = "Find out who writes this rule and turn its masquerading off, or limit it to sources that are not pods."
	exemptWayOut  = "Move this rule behind the agent's, or limit it to sources that are not pods: what it matches is never masqueraded."
	pluginWayOut  = `Set "ipMasq" to false in the network's conflist; pods attached before keep their rule until they are recreated.`
)

var owners = []owner{
	{
		name: "CNI plugin bridge or ptp (ipMasq)", wayOut: pluginWayOut,
		chains: []string{"CNI-"}, table: "cni_plugins_masquerade",
	},
	{
		name: "kubelet", comment: "kubenet:",
		wayOut: "Start the kubelet with --non-masquerade-cidr=0.0.0.0/0, then delete the rule.",
	},
	{
		name: "flannel", chains: []string{"FLANNEL-"}, comment: "flanneld masq", table: "flannel-ipv",
		wayOut: `Start flanneld without --ip-masq and set "ipMasq" to false under "delegate" in its conflist, because its CNI plugin masquerades instead otherwise.`,
	},
	{
		name: "Calico", chains: []string{"cali-", "nat-cali-"}, comment: "cali:", table: "calico",
		wayOut: "Set natOutgoing to false in the IPPools of these pods.",
	},
	{
		name: "Cilium", chains: []string{"CILIUM_"}, comment: "cilium",
		wayOut: "Set enable-ipv4-masquerade and enable-ipv6-masquerade to false in Cilium's configuration.",
	},
	{
		name: "AWS VPC CNI", chains: []string{"AWS-SNAT-CHAIN"}, comment: "AWS, SNAT",
		wayOut: "Set AWS_VPC_K8S_CNI_EXTERNALSNAT to true for the DaemonSet aws-node.",
	},
	{
		name: "another agent", chains: []string{"IP-MASQ"}, comment: "ip-masq-agent:",
		wayOut: "Remove the other agent's DaemonSet, then its jump from POSTROUTING and its chain; or give its chain as --masq-chain to take it over.",
	},
	{
		name: "kindnet", chains: []string{"KIND-MASQ-AGENT"}, table: "kindnet",
		wayOut: "Turn off masquerading in kindnet, or use another main plugin.",
	},
	{
		name: "kube-router", comment: "kube-router", text: "kube-router-",
		wayOut: "Start kube-router with --enable-pod-egress=false.",
	},
	{
		name: "Antrea", chains: []string{"ANTREA-"},
		wayOut: "Set noSNAT to true in the configuration of antrea-agent.",
	},
	{
		name: "kube-proxy", chains: []string{"KUBE-"}, table: "kube-proxy",
		wayOut: "Compare this chain with what kube-proxy writes: it masquerades only what it marked, and that condition is missing ahead of this rule.",
	},
	{
		name: "firewalld", chains: []string{"POST_"}, table: "firewalld",
		wayOut: "Run firewall-cmd --permanent --remove-masquerade for the zone, then firewall-cmd --reload.",
	},
}

// ownerOf tells who writes a rule by the chain that it stands in, its comment, its table and its words.
func (w *walker) ownerOf(chain string, r rule) owner {
	for _, o := range owners {
		if o.wrote(w.name, chain, r) {
			return o
		}
	}
	if oldFlannel(r.match) && r.action == masquerades {
		return owners[slices.IndexFunc(owners, func(o owner) bool { return o.name == "flannel" })]
	}
	return owner{name: unknownOwner, wayOut: unknownWayOut}
}

func (o owner) wrote(table, chain string, r rule) bool {
	contains := func(text, part string) bool { return part != "" && strings.Contains(text, part) }
	return contains(table, o.table) || contains(r.comment, o.comment) || contains(r.text, o.text) ||
		slices.ContainsFunc(o.chains, func(start string) bool { return strings.HasPrefix(chain, start) })
}

// oldFlannel recognises the rule that flannel wrote without chain and comment: from its network to all but multicast.
func oldFlannel(m match) bool {
	return len(m.sources) == 1 && !m.sources[0].not && len(m.destinations) == 1 && m.destinations[0].not &&
		m.destinations[0].prefix.Addr().IsMulticast()
}
