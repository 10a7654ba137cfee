package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// realList is a list as a project writes it, and what the installer makes of it.
type realList struct {
	project string
	files   map[string]string // by the name on the node, from testdata
	origin  string            // the repository and file that write it; the release, or the commit that was looked at
	code    int
	words   string // of the warning, or of the refusal
	note    string // for the documentation
}

// one is a list in one file.
func one(name, from string) map[string]string { return map[string]string{name: from} }

// realLists are what the page of compatibility is made of. Values that projects fill in on the node (ranges, MTU, addresses) are
// examples.
var realLists = []realList{
	{"flannel", one("10-flannel.conflist", "flannel.conflist"), "flannel-io/flannel, Documentation/kube-flannel.yml, release not recorded", 0, "--ip-masq", ""},
	{"k3s", one("10-flannel.conflist", "k3s.conflist"), "k3s-io/k3s, pkg/agent/flannel/setup.go, 243fd14", 0, "--ip-masq", "k3s's own flannel always masquerades; `status` names its rules"},
	{"kindnet (kind)", one("10-kindnet.conflist", "kindnet.conflist"), "kubernetes-sigs/kind, images/kindnetd/cmd/kindnetd/cni.go, eab6fdb", 0, "kindnetd", ""},
	{"Calico", one("10-calico.conflist", "calico.conflist"), "tigera/operator, as rendered on a node, release not recorded", 0, "natOutgoing", ""},
	{"Canal", one("10-canal.conflist", "canal.conflist"), "projectcalico/calico, manifests/canal.yaml, 48be29f", 0, "natOutgoing", "flanneld: as flannel"},
	{"Cilium", one("05-cilium.conflist", "cilium.conflist"), "cilium/cilium, as written by its agent, release not recorded", 0, "enable-bpf-masquerade", ""},
	{"Antrea", one("10-antrea.conflist", "antrea.conflist"), "antrea-io/antrea, build/charts/antrea/conf/antrea-cni.conflist, 80285fc", 0, "noSNAT", ""},
	{"AWS VPC CNI", one("10-aws.conflist", "aws-vpc.conflist"), "aws/amazon-vpc-cni-k8s, misc/10-aws.conflist, about v1.22, as filled in by aws-node", 0, "AWS_VPC_K8S_CNI_EXTERNALSNAT", ""},
	{"Azure CNI", one("10-azure.conflist", "azure.conflist"), "Azure/azure-container-networking, cni/azure-linux.conflist, in its mode transparent, release not recorded", 0, "azure-ip-masq-agent", ""},
	{"GKE", one("10-containerd-net.conflist", "gke.conflist"), "GoogleCloudPlatform/netd, as rendered on a node, release not recorded", 0, "", "GKE's own ip-masq-agent is taken over (`--masq-chain=IP-MASQ`)"},
	{"OVN-Kubernetes", one("10-ovn-kubernetes.conf", "ovn-kubernetes.conf"), "ovn-org/ovn-kubernetes, go-controller/pkg/config/cni.go, 0009ddf", 0, "OVN-Kubernetes", ""},
	{"OpenShift", map[string]string{"00-multus.conf": "multus/openshift.conf", "../run/multus/cni/net.d/10-ovn-kubernetes.conf": "ovn-kubernetes.conf"}, "openshift/cluster-network-operator, bindata/network/multus/multus.yaml, after e59cbf3", 1, "--sources=all", "multus names a single plugin's configuration by its path: `--sources=all`"},
	{"kube-router", one("10-kuberouter.conflist", "kube-router.conflist"), "cloudnativelabs/kube-router, daemonset/kubeadm-kuberouter.yaml, 0253e5b", 0, "--enable-pod-egress", ""},
	{"Kube-OVN", one("01-kube-ovn.conflist", "kube-ovn.conflist"), "kubeovn/kube-ovn, dist/images/kube-ovn.conflist, bb3494f", 0, "natOutgoing", ""},
	{"Weave Net", one("10-weave.conflist", "weave.conflist"), "weaveworks/weave, as written by its launcher, release not recorded", 0, "Weave", ""},
	{"multus, thin", map[string]string{"00-multus.conf": "multus/thin.conf", "10-flannel.conflist": "flannel.conflist"}, "k8snetworkplumbingwg/multus-cni, cmd/thin_entrypoint/main.go, 00da91b", 0, "--ip-masq", "the list and the copy in `00-multus.conf`"},
	{"multus, thick", map[string]string{"00-multus.conf": "multus/thick.conf", "10-flannel.conflist": "flannel.conflist"}, "k8snetworkplumbingwg/multus-cni, deployments/multus-daemonset-thick.yml, 05517e2", 0, "--ip-masq", "the list that multus names"},
	{"CRI-O's default", one("11-crio-ipv4-bridge.conflist", "crio.conflist"), "cri-o/cri-o, contrib/cni/11-crio-ipv4-bridge.conflist, about v1.36", 1, "ipMasq bridge --allow-ipmasq", "set `ipMasq` to false"},
	{"minikube's default", one("1-k8s.conflist", "minikube.conflist"), "kubernetes/minikube, pkg/minikube/cni/bridge.go, 0673d13", 1, "ipMasq bridge --allow-ipmasq", "set `ipMasq` to false"},
	{"podman", one("87-podman-bridge.conflist", "podman.conflist"), "containers/podman, cni/87-podman-bridge.conflist, release not recorded", 1, "ipMasq bridge --allow-ipmasq", "set `ipMasq` to false"},
	{"macvlan, ipvlan (L2), host-device, SR-IOV", one("10-macvlan.conflist", "macvlan.conflist"), "containernetworking/plugins, plugins/main/macvlan, v1.9.1", 1, "macvlan --force", "their packets never meet the node's rules; the plugin writes none"},
}

// TestRealLists installs into every list as its project writes it: what is accepted is loaded by libcni and given back byte for byte,
// and what is refused is not touched.
func TestRealLists(t *testing.T) {
	t.Parallel()
	for _, list := range realLists {
		t.Run(list.project, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			written := map[string]string{}
			for name, from := range list.files {
				raw, err := os.ReadFile(filepath.Join("testdata", from))
				h.must(err)
				h.mkdir(filepath.Dir(h.path(name)))
				written[name] = strings.ReplaceAll(string(raw), "NODE", filepath.Dir(h.conf))
				h.write(name, written[name])
			}
			before := h.snapshot()
			r := h.want(list.code, "", "install", "--dry-run")
			h.unchangedSince(before)
			for word := range strings.FieldsSeq(list.words) {
				if !strings.Contains(r.stderr, word) {
					t.Errorf("no %q in %q", word, r.stderr)
				}
			}
			if list.code == 0 && list.words == "" && r.stderr != "" {
				t.Errorf("a warning: %q", r.stderr)
			}
			h.want(list.code, "", "install")
			if list.code != 0 {
				h.unchangedSince(before)
				return
			}
			if first := h.names()[0]; !strings.HasPrefix(first, "00-multus") {
				h.must(h.installed())
			}
			h.want(0, "", "uninstall")
			for name, text := range written {
				if h.read(h.path(name)) != text {
					t.Errorf("%s is not given back", name)
				}
			}
		})
	}
}

const (
	compatibility = "../../docs/compatibility.md"
	tableBegin    = "<!-- networks: written by go test ./pkg/install -run TestCompatibilityPage -update -->\n"
	tableEnd      = "<!-- end of networks -->\n"
)

// TestCompatibilityPage: the table of network plugins in the documentation is that of TestRealLists.
func TestCompatibilityPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("| network | the list that was tried | installer | what else |\n| --- | --- | --- | --- |\n")
	for _, list := range realLists {
		verdict, what := "accepted", list.note
		switch {
		case list.code != 0:
			verdict = "refused"
		case list.words != "":
			verdict = "accepted, with a warning"
			what = strings.TrimSuffix(firstSentence(list)+"; "+list.note, "; ")
		}
		_, _ = fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", list.project, list.origin, verdict, what)
	}
	page, err := os.ReadFile(compatibility)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", compatibility)
	}
	want := before + tableBegin + b.String() + tableEnd + after
	if *update {
		if err := os.WriteFile(compatibility, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(page) {
		t.Errorf("%s is out of date; go test ./pkg/install -run TestCompatibilityPage -update writes it", compatibility)
	}
}

// firstSentence is what the installer warns of.
func firstSentence(list realList) string {
	for _, from := range list.files {
		raw, err := os.ReadFile(filepath.Join("testdata", from))
		if err != nil {
			return err.Error()
		}
		n := &network{path: "x" + filepath.Ext(from), raw: raw}
		if err := n.understand(); err != nil {
			return err.Error()
		}
		if text := n.mayMasquerade(); text != "" {
			return text
		}
	}
	return ""
}
