package config

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// file is what one file says, without any defaults.
type file struct {
	name                             string
	hash                             [sha256.Size]byte // of its text, where it was read from a file
	data                             []byte            // the text itself, until the whole is hashed
	nonMasquerade, masquerade        list
	masqLinkLocal, masqLinkLocalIPv6 bool
	resyncInterval                   time.Duration // 0 where it is not given

	// nil where they are not given
	cidrLimit      *setting[int]
	sources        *setting[policy.Sources]
	nodeTraffic    *setting[bool]
	toPorts        *setting[toPorts]
	randomFully    *setting[bool]
	podAnnotations *setting[policy.PodAnnotations]

	outputInterfaces patterns
	egress           []group
}

// setting is a value and its place.
type setting[T any] struct {
	value T
	at    place
}

// places are those of everything that the file says, for whoever knows better where they are.
func (f *file) places() []*place {
	var all []*place
	for _, l := range []list{f.nonMasquerade, f.masquerade} {
		all = append(all, l.places()...)
	}
	for i := range f.outputInterfaces.items {
		all = append(all, &f.outputInterfaces.items[i].at)
	}
	for i := range f.egress {
		g := &f.egress[i]
		all = append(append(append(all, &g.at), g.destinations.places()...), g.sources.places()...)
	}
	all = append(all, placeOf(f.cidrLimit), placeOf(f.sources), placeOf(f.nodeTraffic), placeOf(f.toPorts), placeOf(f.randomFully), placeOf(f.podAnnotations))
	return slices.DeleteFunc(all, func(p *place) bool { return p == nil })
}

func placeOf[T any](s *setting[T]) *place {
	if s == nil {
		return nil
	}
	return &s.at
}

// decoder reads one file and reports what is wrong with it.
type decoder struct {
	name   string
	opts   Options
	report *report
}

// decode reads one file. What it cannot read it reports and leaves out.
func decode(name string, data []byte, opts Options, r *report) file {
	first := len(r.findings)
	defer r.sort(first)
	d := decoder{name, opts, r}
	keys, values, err := takeApart(data)
	if err != nil {
		var syntax *syntaxError
		if errors.As(err, &syntax) {
			d.errorf("", syntax.at, "%s", syntax.message)
		} else {
			d.errorf("", position{}, "%s", err)
		}
		return file{name: name}
	}
	return d.file(d.checkKeys("", keys, knownKeys), values)
}

// place names a position that belongs to a key, or to none.
func (d decoder) place(key string, at position) place { return place{d.name, at, key} }

func (d decoder) errorf(key string, at position, format string, args ...any) {
	d.report.errorf(d.place(key, at), format, args...)
}

// file reads the values of the known keys.
func (d decoder) file(keys map[string]entry, values map[string]any) file {
	f := file{name: d.name}
	for _, key := range knownKeys {
		e, given := keys[key]
		value := values[key]
		if !given {
			continue
		}
		if value == nil {
			d.errorf(e.key, e.at, "%s has no value: %s", key, cure(key))
			continue
		}
		switch key {
		case keyNonMasquerade:
			f.nonMasquerade = d.list(e, value)
		case keyMasquerade:
			f.masquerade = d.list(e, value)
		case keyMasqLinkLocal:
			f.masqLinkLocal = d.bool(e, value)
		case keyMasqLinkLocalIPv6:
			f.masqLinkLocalIPv6 = d.bool(e, value)
		case keyResyncInterval:
			f.resyncInterval = d.interval(e, value)
		case keyCIDRLimit:
			f.cidrLimit = d.limit(e, value)
		case keyOutputInterfaces:
			f.outputInterfaces = d.interfaces(e, value)
		case keyEgress:
			f.egress = d.egress(e, value)
		case keySources:
			f.sources = d.sources(e, value)
		case keyNodeTraffic:
			f.nodeTraffic = &setting[bool]{d.bool(e, value), d.place(e.key, e.at)}
		case keyToPorts:
			f.toPorts = d.toPorts(e, value)
		case keyRandomFully:
			f.randomFully = &setting[bool]{d.bool(e, value), d.place(e.key, e.at)}
		case keyPodAnnotations:
			f.podAnnotations = d.podAnnotations(e, value)
		}
	}
	return f
}

// cure says what to write after a key that has no value.
func cure(key string) string {
	switch key {
	case keyNonMasquerade:
		return "write [] to masquerade all destinations, or remove the line for the defaults"
	case keyMasquerade, keyEgress:
		return "write [] for none, or remove the line"
	}
	return "give it a value or remove the line"
}

func (d decoder) bool(e entry, value any) bool {
	b, ok := value.(bool)
	if !ok {
		d.errorf(e.key, e.value.at, "%s is %s: write true or false, without quotes", e.key, describe(value))
	}
	return b
}

func (d decoder) limit(e entry, value any) *setting[int] {
	const remedy = "write a whole number of 0 or more without quotes, or remove the line for no limit"
	number, ok := value.(json.Number)
	if !ok {
		d.errorf(e.key, e.value.at, "%s is %s: %s", e.key, describe(value), remedy)
		return nil
	}
	most, err := strconv.Atoi(number.String())
	if err != nil || most < 0 {
		d.errorf(e.key, e.value.at, "%s is %s: %s", e.key, number, remedy)
		return nil
	}
	return &setting[int]{most, d.place(e.key, e.value.at)}
}

func (d decoder) interval(e entry, value any) time.Duration {
	text, ok := value.(string)
	if !ok {
		d.errorf(e.key, e.value.at, "%s is %s: write %q", e.key, describe(value), withUnit(fmt.Sprint(value)))
		return 0
	}
	interval, err := parseInterval(text)
	if err != nil {
		d.errorf(e.key, e.value.at, "%s %s", e.key, err)
	}
	return interval
}

func parseInterval(text string) (time.Duration, error) {
	interval, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration with a unit: write %q", text, withUnit(text))
	}
	if interval < MinResyncInterval {
		return 0, fmt.Errorf(`%q is too short: write "60s", or at least %q`, text, MinResyncInterval)
	}
	return interval, nil
}

// withUnit turns a bare number of seconds into a duration that is accepted, and anything else into the default.
func withUnit(text string) string {
	if interval, err := time.ParseDuration(text + "s"); err == nil && interval >= MinResyncInterval {
		return text + "s"
	}
	return "60s"
}

// describe names a value of the wrong type.
func describe(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("the string %q", v)
	case json.Number:
		return "the number " + v.String()
	case bool:
		return fmt.Sprintf("the boolean %t", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	}
	return "empty"
}
