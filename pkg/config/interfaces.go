package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// patterns is a list of interfaces as a file gives it.
type patterns struct {
	given bool
	at    place
	items []setting[string]
}

func (p patterns) policy() policy.Interfaces {
	var all policy.Interfaces
	for _, it := range p.items {
		all = append(all, it.value)
	}
	return all
}

// interfaces reads a list of patterns. A bad item is reported and left out.
func (d decoder) interfaces(e entry, value any) patterns {
	p := patterns{given: true, at: d.place(e.key, e.at)}
	values, ok := value.([]any)
	if !ok {
		d.errorf(e.key, e.value.at, `%s is %s: write a list, such as [eth0, "bond*", "!wg0"]`, e.key, describe(value))
		return p
	}
	for i, value := range values {
		name, at := fmt.Sprintf("%s[%d]", e.key, i), e.value.item(i).at
		text, isString := value.(string)
		switch {
		case value == nil || text == "" && isString:
			d.errorf(e.key, at, `%s is empty: write a name such as eth0, or remove the item; one that begins with an exclamation mark needs quotes: "!wg0"`, name)
			continue
		case !isString:
			d.errorf(e.key, at, "%s is %s: write the name of an interface, in quotes if it is a number", name, describe(value))
			continue
		}
		if err := policy.ValidateInterface(text); err != nil {
			d.errorf(e.key, at, "%s: %s", name, err)
			continue
		}
		p.items = append(p.items, setting[string]{text, d.place(e.key, at)})
	}
	return p
}

// joinInterfaces makes one list of several, without those that a further file repeats.
func joinInterfaces(files []file) patterns {
	var joined patterns
	for _, f := range files {
		if f.outputInterfaces.given && !joined.given {
			joined.given, joined.at = true, f.outputInterfaces.at
		}
		for _, it := range f.outputInterfaces.items {
			repeated := func(other setting[string]) bool { return other.value == it.value && other.at.file != it.at.file }
			if !slices.ContainsFunc(joined.items, repeated) {
				joined.items = append(joined.items, it)
			}
		}
	}
	return joined
}

// advise warns of patterns without effect.
func (p patterns) advise(r *report) {
	if p.given && len(p.items) == 0 {
		r.add(p.at, Warning, fmt.Sprintf("%s is empty, which means every interface: list some, or remove the line", keyOutputInterfaces))
	}
	first := map[string]place{}
	for _, it := range p.items {
		if earlier, twice := first[it.value]; twice {
			r.add(it.at, Warning, fmt.Sprintf("%q is listed twice, first in %s: remove one of them", it.value, earlier.seenFrom(it.at)))
			continue
		}
		first[it.value] = it.at
		p.adviseOn(it, r)
	}
}

// adviseOn warns of one pattern that others make useless.
func (p patterns) adviseOn(it setting[string], r *report) {
	name, excluded := strings.CutPrefix(it.value, "!")
	concerned := !excluded // an exclusion: whether a pattern names an interface that it leaves out
	for _, other := range p.items {
		otherName, otherExcluded := strings.CutPrefix(other.value, "!")
		switch {
		case other == it:
		case !excluded && otherExcluded && coversPattern(otherName, name):
			r.add(it.at, Warning, fmt.Sprintf("%q has no effect: %q (%s) leaves out every interface that it names; remove one of the two", it.value, other.value, other.at.seenFrom(it.at)))
			return
		case excluded == otherExcluded && otherName != name && coversPattern(otherName, name):
			r.add(it.at, Warning, fmt.Sprintf("%q changes nothing: %q (%s) covers it; remove one of the two", it.value, other.value, other.at.seenFrom(it.at)))
			return
		case excluded && !otherExcluded && (coversPattern(otherName, name) || coversPattern(name, otherName)):
			concerned = true
		}
	}
	meant, _ := p.policy().Split()
	if excluded && !concerned && len(meant) > 0 {
		r.add(it.at, Warning, fmt.Sprintf("%q changes nothing: no pattern of the list names an interface that it leaves out; remove it", it.value))
	}
}

// coversPattern reports whether every interface of the inner pattern is one of the outer.
func coversPattern(outer, inner string) bool {
	stem, wild := strings.CutSuffix(outer, "*")
	return outer == inner || wild && strings.HasPrefix(strings.TrimSuffix(inner, "*"), stem)
}
