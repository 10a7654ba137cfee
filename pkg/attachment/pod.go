package attachment

import "strings"

// Pod is the name by which people know a container's sandbox. It is for reading only: what an attachment is, its Owner says.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// The arguments by which runtimes name the pod (containerd and CRI-O, both after the dockershim).
const (
	podNamespaceArg = "K8S_POD_NAMESPACE"
	podNameArg      = "K8S_POD_NAME"
)

// ParsePod reads CNI_ARGS, "KEY=VALUE;KEY=VALUE". Arguments that are malformed, or are about something else, are other
// programs' business.
func ParsePod(args string) Pod {
	var p Pod
	for len(args) > 0 {
		var arg string
		arg, args, _ = strings.Cut(args, ";")
		key, value, _ := strings.Cut(arg, "=")
		p.Take(key, value)
	}
	return p
}

// Take reads one argument.
func (p *Pod) Take(key, value string) {
	switch key {
	case podNamespaceArg:
		p.Namespace = value
	case podNameArg:
		p.Name = value
	}
}

// String is NAMESPACE/NAME, empty for a pod without a name.
func (p Pod) String() string {
	if p.Name == "" {
		return ""
	}
	return p.Namespace + "/" + p.Name
}
