package main

import (
	"path/filepath"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// TestPodNames: the runtime's arguments name the pod in its record, whether it is masqueraded or opted out.
func TestPodNames(t *testing.T) {
	args := env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=2")
	eachVariant(t, func(t *testing.T, v variant) {
		h := newHost(t, v)
		in, out := h.request("ADD", "a", "10.1.0.2"), h.request("ADD", "b", "10.1.0.3").set("masquerade", false)
		for _, r := range []*request{in, out} {
			args(r)
			h.must(t, r)
		}
		h.wantNames(t, "attachments", "default/web-0")
		h.wantNames(t, "opted-out", "default/web-0")
		h.must(t, in.as("DEL"))
		h.must(t, out.as("DEL"))
		h.wantNames(t, "attachments")
		h.wantNames(t, "opted-out")
	})
}

func (h *host) wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	all, err := attachment.Store{Dir: filepath.Join(h.stateDir, dir)}.List()
	if err != nil || len(all) != len(want) {
		t.Fatalf("%s: %+v, %v, want %q", dir, all, err, want)
	}
	for i, a := range all {
		if a.Pod.String() != want[i] {
			t.Errorf("%s: %q, want %q", dir, a.Pod, want[i])
		}
	}
}
