package conflicts

import (
	"net/netip"
	"slices"
	"strings"
)

// owner is software that is known to translate pods' addresses, by what its rules look like.
type owner struct {
	name      string
	fix       string   // what ends its translation
	untracked string   // what ends its rules against connection tracking
	chains    []string // beginnings of names
	comment   string   // a part
	table     string   // a part, of nf_tables
	text      string   // a part of the rule
}

const unknownOwner = "unknown"

const (
	unknownFix   = "Find out who writes this rule and turn its masquerading off, or limit it to sources that are not pods."
	exemptFix    = "Move this rule behind the agent's, or limit it to sources that are not pods: what it matches is never masqueraded."
	untrackedFix = "Find out who writes this rule and limit it to sources that are not pods: connections that are not tracked are never masqueraded."
	pluginFix    = `Set "ipMasq" to false in the network's conflist; pods attached before keep their rule until they are recreated.`
	metadataFix  = "Leave the rule: pods reach the cloud's metadata service by it. Add the address to masqueradeCIDRs, so that the policy says the same."
)

// metadata are the addresses of clouds' metadata services. Some answer the node's address alone.
var metadata = rangesOf(
	rangeOf(netip.MustParsePrefix("169.254.169.254/32")),
	rangeOf(netip.MustParsePrefix("fd00:ec2::254/128")),
)

var owners = []owner{
	{name: "CNI plugin bridge or ptp (ipMasq)", fix: pluginFix, chains: []string{"CNI-"}, table: "cni_plugins_masquerade"},
	{
		name: "kubelet", comment: "kubenet:",
		fix: "Delete the rule; a kubelet before Kubernetes 1.24 writes it again unless it is started with --non-masquerade-cidr=0.0.0.0/0.",
	},
	{
		name: "flannel", chains: []string{"FLANNEL-"}, comment: "flanneld masq", table: "flannel-ipv",
		fix: `Start flanneld without --ip-masq and set "ipMasq" to false under "delegate" in its conflist, because its CNI plugin masquerades instead otherwise.`,
	},
	{
		name: "Calico", chains: []string{"cali-", "nat-cali-"}, comment: "cali:", table: "calico",
		fix: "Set natOutgoing to false in the IPPools of these pods.",
	},
	{
		name: "Cilium", chains: []string{"CILIUM_"}, comment: "cilium",
		fix:       "Set enable-ipv4-masquerade and enable-ipv6-masquerade to false in Cilium's configuration.",
		untracked: "Set install-no-conntrack-iptables-rules to false in Cilium's configuration: connections that are not tracked are never masqueraded.",
	},
	{
		name: "AWS VPC CNI", chains: []string{"AWS-SNAT-CHAIN"}, comment: "AWS, SNAT",
		fix: "Set AWS_VPC_K8S_CNI_EXTERNALSNAT to true for the DaemonSet aws-node.",
	},
	{
		name: "another agent", chains: []string{"IP-MASQ"}, comment: "ip-masq-agent:",
		fix: "Remove the other agent's DaemonSet, then its jump from POSTROUTING and its chain; or give its chain as --masq-chain to take it over.",
	},
	{name: "Docker", text: "docker", chains: []string{"DOCKER"}, fix: `Set "ip-masq" to false in Docker's daemon.json and restart it.`},
	{name: "libvirt", chains: []string{"LIBVIRT_", "guest_nat"}, table: "libvirt_network", fix: `Change <forward mode="nat"/> to <forward mode="route"/> in libvirt's network.`},
	{
		name: "kindnet", chains: []string{"KIND-MASQ-AGENT"}, table: "kindnet",
		fix: "Turn off masquerading in kindnet, or use another main plugin.",
	},
	{
		name: "kube-router", comment: "kube-router", text: "kube-router-",
		fix: "Start kube-router with --enable-pod-egress=false.",
	},
	{
		name: "Antrea", chains: []string{"ANTREA-"},
		fix: "Set noSNAT to true in the configuration of antrea-agent.",
	},
	{
		name: "kube-proxy", chains: []string{"KUBE-"}, table: "kube-proxy",
		fix: "Compare this chain with what kube-proxy writes: it masquerades only what it marked, and that condition is missing ahead of this rule.",
	},
	{
		name: "firewalld", chains: []string{"POST_"}, table: "firewalld",
	},
}

// ownerOf tells who writes a rule by the chain that it stands in, its comment, its table and its words.
func (w *walker) ownerOf(chain string, r rule) owner {
	for _, o := range owners {
		if o.wrote(w.name, chain, r) {
			return o
		}
	}
	if oldFlannel(r) {
		return owners[slices.IndexFunc(owners, func(o owner) bool { return o.name == "flannel" })]
	}
	return owner{name: unknownOwner}
}

func (o owner) wrote(table, chain string, r rule) bool {
	contains := func(text, part string) bool { return part != "" && strings.Contains(text, part) }
	return contains(table, o.table) || contains(r.comment, o.comment) || contains(r.text, o.text) ||
		slices.ContainsFunc(o.chains, func(start string) bool { return strings.HasPrefix(chain, start) })
}

// oldFlannel recognises the rule that flannel wrote without chain and comment: from its network to all but multicast.
func oldFlannel(r rule) bool {
	return r.action == translate && len(r.match) == 2 && r.match[0].about == source && !r.match[0].not &&
		r.match[1].about == destination && r.match[1].not && r.match[1].addresses[0].first.IsMulticast()
}

// translationFix is what ends a translation of packets to some destinations, of which the policy keeps those in kept.
func (o owner) translationFix(chain string, hit, kept ranges) string {
	_, beyond := hit.split(metadata)
	switch {
	case len(beyond) == 0 && hit.overlap(kept):
		return metadataFix
	case o.name == "firewalld":
		return firewalldFix(chain)
	case o.fix != "":
		return o.fix
	}
	return unknownFix
}

func (o owner) untrackedFix() string {
	if o.untracked != "" {
		return o.untracked
	}
	return untrackedFix
}

// firewalldFix names the zone or policy that masquerades, which is in the name of its chain.
func firewalldFix(chain string) string {
	_, of, _ := strings.Cut(chain, "POST_")
	of = strings.TrimSuffix(of, "_allow")
	option := "--zone=" + of
	if policy, ok := strings.CutPrefix(of, "policy_"); ok {
		option = "--policy=" + policy
	}
	return "Run firewall-cmd --permanent " + option + " --remove-masquerade, then firewall-cmd --reload."
}
