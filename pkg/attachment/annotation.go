package attachment

import (
	"fmt"
	"slices"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// PodAnnotations is the capability for which runtimes hand over a pod's annotations.
const PodAnnotations = "io.kubernetes.cri.pod-annotations"

// The words that YAML 1.1 reads as booleans (https://yaml.org/type/bool.html). An annotation is a text, and people write there
// what they would write in a manifest.
var (
	yes = []string{"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}
	no  = []string{"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}
)

// OptedOut reports whether a pod's annotations keep its own address everywhere.
func OptedOut(annotations map[string]string) (bool, error) {
	value, there := annotations[policy.MasqueradeAnnotation]
	switch {
	case !there, slices.Contains(yes, value):
		return false, nil
	case slices.Contains(no, value):
		return true, nil
	}
	return false, fmt.Errorf(`annotation %s: %q is not a boolean: write "true" or "false"`, policy.MasqueradeAnnotation, value)
}
