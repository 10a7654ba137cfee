package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// The flags that win over a key of the file, by their key.
var flagOf = map[string]string{keySources: "sources", keyToPorts: "to-ports", keyRandomFully: "random-fully"}

// SettingFlags are those flags, sorted.
func SettingFlags() []string { return slices.Sorted(maps.Values(flagOf)) }

// toPorts are the source ports that a file wants.
type toPorts struct {
	auto   bool
	ranges policy.PortRanges
}

// String is the value as it may be written.
func (p toPorts) String() string {
	if p.auto {
		return policy.AutoPorts
	}
	return p.ranges.String()
}

func (d decoder) sources(e entry, value any) *setting[policy.Sources] {
	text, _ := value.(string)
	sources, err := policy.ParseSources(text)
	if err != nil {
		d.errorf(e.key, e.value.at, "%s is %s: write %s, or %s", e.key, describe(value), policy.SourcesPods, policy.SourcesAll)
		return nil
	}
	return &setting[policy.Sources]{sources, d.place(e.key, e.at)}
}

func (d decoder) toPorts(e entry, value any) *setting[toPorts] {
	const remedy = `write ranges such as "1024-29999,61000-65535", or auto`
	text, ok := value.(string)
	if number, isNumber := value.(json.Number); isNumber { // one port
		text, ok = number.String(), true
	}
	if !ok || text == "" {
		d.errorf(e.key, e.value.at, "%s is %s: %s", e.key, describe(value), remedy)
		return nil
	}
	ranges, auto, err := policy.ParseToPorts(text)
	if err != nil {
		d.errorf(e.key, e.value.at, "%s: %s: %s", e.key, err, remedy)
		return nil
	}
	return &setting[toPorts]{toPorts{auto, ranges}, d.place(e.key, e.at)}
}

func (d decoder) podAnnotations(e entry, value any) *setting[policy.PodAnnotations] {
	at := d.place(e.key, e.at)
	if text, ok := value.(string); ok && (text == string(policy.AllowAnnotations) || text == string(policy.DenyAnnotations)) {
		return &setting[policy.PodAnnotations]{policy.PodAnnotations(text), at}
	}
	values, ok := value.([]any)
	if !ok {
		d.errorf(e.key, e.value.at, "%s is %s: write %s, %s, or a list of annotations, such as [%s]", e.key, describe(value),
			policy.AllowAnnotations, policy.DenyAnnotations, policy.SourceAddressesAnnotation)
		return nil
	}
	var names []string
	for i, value := range values {
		name, _ := value.(string)
		if name != policy.MasqueradeAnnotation && name != policy.SourceAddressesAnnotation {
			d.errorf(e.key, e.value.item(i).at, "%s[%d] is %s: write %s, or %s", e.key, i, describe(value), policy.MasqueradeAnnotation, policy.SourceAddressesAnnotation)
		}
		names = append(names, name)
	}
	return &setting[policy.PodAnnotations]{policy.AllowedAnnotations(names), at}
}

// agreed returns what the files say, nil where none does. Two that say different things are an error: neither is the stricter one.
func agreed[T any](files []file, get func(file) *setting[T], r *report) *setting[T] {
	var first *setting[T]
	for _, f := range files {
		switch s := get(f); {
		case s == nil:
		case first == nil:
			first = s
		case fmt.Sprint(s.value) != fmt.Sprint(first.value):
			r.errorf(s.at, "%s is %v here and %v in %s: remove one of the two", s.at.key, s.value, first.value, first.at.seenFrom(s.at))
		}
	}
	return first
}

// settings puts what the files say under the flags. It returns the places of the keys that decide, and of those that do not.
func settings(files []file, opts Options, r *report) (s policy.Settings, deciding, overruled map[string]place) {
	s, deciding, overruled = opts.Settings, map[string]place{}, map[string]place{}
	use := func(at place) bool {
		if slices.Contains(opts.Given, flagOf[at.key]) {
			overruled[at.key] = at
			return false
		}
		deciding[at.key] = at
		return true
	}
	if key := agreed(files, func(f file) *setting[policy.Sources] { return f.sources }, r); key != nil && use(key.at) {
		s.Sources = key.value
	}
	if key := agreed(files, func(f file) *setting[bool] { return f.randomFully }, r); key != nil && use(key.at) {
		s.RandomFully = key.value
	}
	if key := agreed(files, func(f file) *setting[toPorts] { return f.toPorts }, r); key != nil && use(key.at) {
		s.ToPorts, s.AutoPorts = key.value.ranges, key.value.auto
	}
	if key := agreed(files, func(f file) *setting[policy.PodAnnotations] { return f.podAnnotations }, r); key != nil && use(key.at) {
		if s.PodAnnotations = key.value; s.PodAnnotations == policy.AllowAnnotations {
			s.PodAnnotations = "" // the default makes the same policy whether it is written or not
		}
	}
	for _, f := range files { // like the other switches, it is on if one file turns it on
		if key := f.nodeTraffic; key != nil && !s.NodeTraffic && (key.value || deciding[keyNodeTraffic] == place{}) {
			s.NodeTraffic, deciding[keyNodeTraffic] = key.value, key.at
		}
	}
	if s.NodeTraffic && s.Sources == policy.SourcesAll {
		where := "the flag --sources"
		if at, byKey := deciding[keySources]; byKey {
			where = at.seenFrom(deciding[keyNodeTraffic])
		}
		r.errorf(deciding[keyNodeTraffic], "%s: true says nothing beside sources: all (%s), which is about all traffic already: remove one of the two", keyNodeTraffic, where)
	}
	return s, deciding, overruled
}
