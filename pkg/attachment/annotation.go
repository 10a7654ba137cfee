package attachment

import (
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// PodAnnotations is the capability for which runtimes hand over a pod's annotations.
const PodAnnotations = "io.kubernetes.cri.pod-annotations"

// Asked is what pod and network ask for. The pod's annotations go before the network's key, and that before the policy.
type Asked struct {
	Annotations map[string]string // the pod's, also those that are about something else
	Network     *bool             // the key "masquerade" of the network's entry; nil where it has none
}

// Annotated reports whether the pod has an annotation of ip-masq.
func (a Asked) Annotated() bool {
	for _, name := range policy.Annotations() {
		if _, there := a.Annotations[name]; there {
			return true
		}
	}
	return false
}

// BadAnnotation is an annotation that counts and whose value cannot be understood.
type BadAnnotation struct {
	Name   string
	Reason error
}

// Error names the annotation and what to write.
func (b *BadAnnotation) Error() string { return fmt.Sprintf("annotation %s: %v", b.Name, b.Reason) }

// Unwrap returns what is wrong with the value.
func (b *BadAnnotation) Unwrap() error { return b.Reason }

// Decide says what becomes of an attachment: whether it keeps its address everywhere, which source addresses were chosen for it,
// and which of its annotations are refused because the policy does not let them count. Nobody looks at a refused annotation's
// value. The error is a *BadAnnotation, and what is returned beside it is decided without that one.
func (a Attachment) Decide(allowed policy.PodAnnotations) (decided Attachment, optedOut bool, err error) {
	optedOut = a.Asked.Network != nil && !*a.Asked.Network
	a.Refused, a.SourceAddresses = nil, nil
	for _, name := range policy.Annotations() {
		value, there := a.Asked.Annotations[name]
		var bad error
		switch {
		case !there:
		case !allowed.Allows(name):
			a.Refused = append(a.Refused, name)
		case name == policy.MasqueradeAnnotation:
			var masquerade bool
			if masquerade, bad = parseBool(value); bad == nil {
				optedOut = !masquerade
			}
		case name == policy.SourceAddressesAnnotation:
			a.SourceAddresses, bad = policy.ParseSourceAddresses(value)
		}
		if bad != nil && err == nil {
			err = &BadAnnotation{name, bad}
		}
	}
	if optedOut {
		a.SourceAddresses = nil
	}
	return a, optedOut, err
}

// The words that YAML 1.1 reads as booleans (https://yaml.org/type/bool.html). An annotation is a text, and people write there
// what they would write in a manifest.
var (
	yes = []string{"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
	no  = []string{"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
)

func parseBool(value string) (bool, error) {
	switch {
	case slices.Contains(yes, value):
		return true, nil
	case slices.Contains(no, value):
		return false, nil
	}
	return false, fmt.Errorf(`%q is not a boolean: write "true" or "false"`, value)
}
