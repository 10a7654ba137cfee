package conflicts

import (
	"fmt"
	"strings"
	"testing"
)

// TestKnownSoftware has the rules that known software writes.
func TestKnownSoftware(t *testing.T) {
	for _, test := range softwareTests {
		t.Run(test.name, test.run)
	}
}

var softwareTests = []walkTest{
	{
		name: "kubelet", rules: `-A POSTROUTING ! -d 10.0.0.0/8 -m comment --comment "kubenet: SNAT for outbound traffic from cluster" -m addrtype ! --dst-type LOCAL -j MASQUERADE`,
		want: []string{"kubelet: POSTROUTING 1"},
	},
	{name: "kubelet's localhost rule", rules: `-A POSTROUTING -s 127.0.0.0/8 -o cbr0 -m comment --comment "SNAT for localhost access to hostports" -j MASQUERADE`},
	{name: "kube-proxy", rules: kubeProxy},
	{name: "kube-proxy in mode ipvs", rules: `-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m comment --comment "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE`},
	{
		name: "kube-proxy whose mark was dropped", rules: strings.Replace(kubeProxy, "-m mark ! --mark 0x4000/0x4000 ", "-p tcp ", 1),
		want: []string{"kube-proxy: KUBE-POSTROUTING 3"},
	},
	{name: "hostports", rules: `-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE`},
	{name: "bridge", rules: bridge("net", "10.244.0.5", "10.244.0.6"), want: []string{"CNI plugin bridge or ptp (ipMasq): CNI-000000000000000000000000 2 (and 1 more)"}},
	{name: "bridge of other software", rules: bridge("net", "10.88.0.5")},
	{
		name: "bridge where only its network is kept", rules: bridge("net", "10.244.0.5"),
		change: func(q *Query) {
			q.Policy.NonMasquerade, q.Policy.MasqLinkLocal = prefixes("10.244.0.0/24"), true
		},
	},
	{name: "flannel", rules: flannel, want: []string{"flannel: FLANNEL-POSTRTG 5"}},
	{name: "flannel of old", rules: `-A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN
-A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.0.0/24 -j RETURN
-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE
` + root, want: []string{"flannel: POSTROUTING 2"}},
	{name: "Calico", rules: calico, want: []string{"Calico: cali-nat-outgoing 1"}},
	{name: "Cilium", rules: cilium, want: []string{"Cilium: CILIUM_POST_nat 1"}},
	{name: "AWS", rules: aws, want: []string{"AWS VPC CNI: AWS-SNAT-CHAIN-0 2"}},
	{
		name: "AWS of old", rules: `-A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
-A AWS-SNAT-CHAIN-0 ! -d 10.0.0.0/16 -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-1
-A AWS-SNAT-CHAIN-1 -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.1.5 --random-fully`,
		want: []string{"AWS VPC CNI: AWS-SNAT-CHAIN-1 1"},
	},
	{name: "GKE", rules: gke("10.0.0.0/8"), want: []string{"another agent: IP-MASQ 2"}},
	{name: "GKE with the same policy", rules: gke("169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")},
	{name: "GKE taken over", rules: gke("10.0.0.0/8"), change: func(q *Query) { q.Policy.Settings.Chain = "IP-MASQ" }},
	{
		name: "kube-router", rules: `-A POSTROUTING -m set --match-set kube-router-pod-subnets src -m set ! --match-set kube-router-pod-subnets dst -j MASQUERADE`,
		want: []string{"kube-router: POSTROUTING 1"},
	},
}

// The rules of known software.
const (
	kubeProxy = `-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
`
	flannel = `-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
`
	calico = `-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-fip-snat
-A cali-POSTROUTING -m comment --comment "cali:nYKhEzDlr11Jccal" -j cali-nat-outgoing
-A cali-POSTROUTING -o tunl0 -m comment --comment "cali:SXWvdsbh4Mw7wOln" -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL -j MASQUERADE --random-fully
-A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully
`
	cilium = `-A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat
-A CILIUM_POST_nat -s 10.244.0.0/24 ! -d 10.244.0.0/24 ! -o cilium_+ -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE
-A CILIUM_POST_nat -m mark --mark 0xa00/0xe00 -m comment --comment "exclude proxy return traffic from masquerade" -j ACCEPT
-A CILIUM_POST_nat -s 127.0.0.1/32 -o cilium_host -m comment --comment "cilium host->cluster from 127.0.0.1 masquerade" -j SNAT --to-source 10.244.0.1
`
	aws = `-A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
-A AWS-SNAT-CHAIN-0 -d 192.168.0.0/16 -m comment --comment "AWS SNAT CHAIN" -j RETURN
-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source 192.168.3.7 --random-fully
`
)

func bridge(network string, pods ...string) string {
	var b strings.Builder
	for i, pod := range pods {
		fmt.Fprintf(&b, `-A POSTROUTING -s %[1]s/32 -m comment --comment "name: %[2]s id: pod%[3]d" -j CNI-%024[3]d
-A CNI-%024[3]d -d 10.244.0.0/24 -m comment --comment "name: %[2]s id: pod%[3]d" -j ACCEPT
-A CNI-%024[3]d ! -d 224.0.0.0/4 -m comment --comment "name: %[2]s id: pod%[3]d" -j MASQUERADE
`, pod, network, i)
	}
	return b.String()
}

func gke(kept ...string) string {
	var b strings.Builder
	b.WriteString(`-A POSTROUTING -m comment --comment "ip-masq: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ` + "\n")
	for _, prefix := range kept {
		fmt.Fprintf(&b, `-A IP-MASQ -d %s -m comment --comment "ip-masq: local traffic is not subject to MASQUERADE" -j RETURN`+"\n", prefix)
	}
	b.WriteString(`-A IP-MASQ -m comment --comment "ip-masq: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE` + "\n")
	return b.String()
}
