package explain

import (
	"os"
	"reflect"
	"strings"
	"testing"
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
