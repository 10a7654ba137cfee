package explain

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestDocumented: the page names every key of the answer and every kind of obstacle.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, what := range Obstacles() {
		words = append(words, string(what))
	}
	answer := reflect.TypeFor[Answer]()
	for i := range answer.NumField() {
		words = append(words, answer.Field(i).Tag.Get("json"))
	}
	for _, word := range words {
		if !strings.Contains(string(page), "`"+word+"`") {
			t.Errorf("docs/status.md does not name %s", word)
		}
	}
}

// TestCausesDocumented: the reference of the file names every cause, in the order in which policy.Decide asks.
func TestCausesDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rest := string(page)
	for _, cause := range []policy.Cause{
		policy.ByFamily, policy.BySource, policy.ByMulticast, policy.ByLocal, policy.ByInterface, policy.ByPrefix, policy.ByDefault, policy.ByAnnotation, policy.ByWhenMissing,
	} {
		_, after, found := strings.Cut(rest, "`"+string(cause)+"`")
		if !found {
			t.Fatalf("docs/configuration.md does not name %s behind the causes that are asked before", cause)
		}
		rest = after
	}
}
