package attachment

import "testing"

func TestParsePod(t *testing.T) {
	for args, want := range map[string]Pod{
		"": {},
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=2": {"default", "web-0"},
		"K8S_POD_NAME=a;K8S_POD_NAMESPACE=b":                                         {"b", "a"},
		"K8S_POD_NAME=a=b;K8S_POD_NAMESPACE":                                         {"", "a=b"},
		"NAME=a;;=;K8S_POD":                                                          {},
	} {
		if got := ParsePod(args); got != want {
			t.Errorf("%q: got %+v, want %+v", args, got, want)
		}
	}
	if got := (Pod{"default", "web-0"}).String() + (Pod{Namespace: "default"}).String(); got != "default/web-0" {
		t.Errorf("got %q", got)
	}
}
