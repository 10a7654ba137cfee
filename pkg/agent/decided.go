package agent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
	"github.com/ip-masq/ip-masq-cni/pkg/ruleset"
	"github.com/ip-masq/ip-masq-cni/pkg/status"
)

// decided says which flag, or which line of which file, decides each setting.
func (f inForce) decided() []status.Decided {
	s := f.policy.Settings
	ports := s.ToPorts.String()
	if s.AutoPorts {
		ports = policy.AutoPorts
	}
	var all []status.Decided
	for _, d := range []struct{ key, flag, value, byDefault string }{
		{"sources", "sources", string(s.Sources), string(policy.SourcesPods)},
		{"nodeTraffic", "", fmt.Sprint(s.NodeTraffic), "false"},
		{"outputInterfaces", "", strings.Join(f.policy.OutputInterfaces, ","), ""},
		{"toPorts", "to-ports", ports, ""},
		{"randomFully", "random-fully", fmt.Sprint(s.RandomFully), "true"},
		{"podAnnotations", "", string(cmp.Or(s.PodAnnotations, policy.AllowAnnotations)), string(policy.AllowAnnotations)},
	} {
		one := status.Decided{Key: d.key, Value: d.value, By: f.decidedBy(d.key, d.flag, d.value == d.byDefault)}
		if at, found := f.config.LocateKey(d.key); one.By == status.ByFile && found {
			one.File, one.Line = &at.File, &at.Line
		}
		all = append(all, one)
	}
	return all
}

func (f inForce) decidedBy(key, flag string, isDefault bool) status.DecidedBy {
	if flag != "" && slices.Contains(f.policy.Flags, flag) {
		return status.ByFlag
	}
	if _, found := f.config.LocateKey(key); found {
		return status.ByFile
	}
	if !isDefault && (f.origin == OriginPersisted || f.origin == OriginElsewhere) {
		return status.ByPersisted
	}
	return status.ByDefault
}

// prefixes are those of the policy, with their places.
func (f inForce) prefixes() []status.Prefix {
	all := status.Prefixes(f.policy)
	places := f.config.Locations()
	for i := range all {
		if at, found := places[all[i].Prefix]; found {
			all[i].File, all[i].Line = &at.File, &at.Line
		}
	}
	return all
}

// egress are the policy's groups as they are on the node, with their places.
func (f inForce) egress(groups []ruleset.Egress) []status.Egress {
	all := status.EgressOf(f.policy, groups)
	for i := range all {
		if at, found := f.config.LocateGroup(all[i].Group); found {
			all[i].File, all[i].Line = &at.File, &at.Line
		}
	}
	return all
}

// chosenPorts are those of auto.
func (f inForce) chosenPorts() *status.ChosenPorts {
	if f.clearOf == "" {
		return nil
	}
	return &status.ChosenPorts{Ranges: f.policy.Settings.ToPorts.String(), ClearOf: f.clearOf}
}
