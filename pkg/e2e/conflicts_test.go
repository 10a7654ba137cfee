package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestStatusNamesConflicts: a rule of other software that contradicts the policy is named with its owner, its rule and the
// fix, and is left alone. That all of it is found is shown where it is looked for.
func TestStatusNamesConflicts(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.attached(t, "a")
		r.Sync(t)
		if s := r.status(t, "--cni-conf-dir", r.ConfDir); len(s.Conflicts) != 0 {
			t.Fatalf("on a node without other software: %+v", s.Conflicts)
		}
		list := strings.Replace(conflist(network, plain), `"isGateway": true`, `"isGateway": true, "ipMasq": true`, 1)
		overwrite(t, filepath.Join(r.ConfDir, "10-pods.conflist"), list)
		rule := "-A POSTROUTING -s 10.244.0.0/24 -m comment --comment \"flanneld masq\" -j MASQUERADE"
		r.sh(t, "iptables -w -t nat "+strings.Replace(rule, "-A", "-I", 1))
		s := r.status(t, "--cni-conf-dir", r.ConfDir)
		text := r.Agent(t, "status", "--cni-conf-dir", r.ConfDir).Stdout
		for _, what := range []string{"ipMasq", "flanneld masq"} {
			found := false
			for _, c := range s.Conflicts {
				found = found || strings.Contains(c.Rule, what) && c.Owner != "" && c.Where != "" && c.Fix != ""
			}
			if !found || !strings.Contains(text, what) {
				t.Errorf("%s is not named in %+v\n%s", what, s.Conflicts, text)
			}
		}
		r.Sync(t)
		if rules := r.Run(t, "iptables", "-w", "-t", "nat", "-S", "POSTROUTING"); !strings.Contains(rules, rule) {
			t.Errorf("the other software's rule is gone:\n%s", rules)
		}
	})
}
