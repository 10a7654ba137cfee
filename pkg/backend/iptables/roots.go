package iptables

import (
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// knownRoots are the root rules that this and older agents write for the same chains: both of ours, the Kubernetes
// agent's, and the form with literal quotes around the comment that its releases up to v2.10 and Azure's agent write.
func knownRoots(s policy.Settings) []rule {
	pods, all := s, s
	pods.Sources, all.Sources = policy.SourcesPods, policy.SourcesAll
	quoted := slices.Clone(rootRule(all))
	quoted[slices.Index(quoted, "--comment")+1] = `"` + allRootComment(s) + `"`
	return []rule{rootRule(pods), rootRule(all), quoted}
}

// isRoot recognises a root rule of any agent of this family, whatever the words after the name: it leads from POSTROUTING
// into one of our chains and says that it is an ip-masq-agent's. A rule of other software that jumps to our chain without
// saying so is left alone.
func isRoot(s policy.Settings, r rule) bool {
	target := r.target()
	comment := strings.TrimPrefix(r.value("--comment"), `"`)
	return (target == s.Chain || target == s.PodsChain()) && strings.HasPrefix(comment, "ip-masq-agent:")
}
