package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// outlineYAML finds the places of the keys in a YAML text of at most one document.
func outlineYAML(data []byte) (outline, error) {
	if offset := bytes.IndexFunc(data, isControl); offset >= 0 {
		return nil, syntaxErrorf(positionOf(data, offset), "control character %U is not allowed", data[offset])
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, yamlError(data, err)
	}
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
		return outlineNode(document.Content[0])
	case err != nil:
		return nil, yamlError(data, err)
	}
	return nil, syntaxErrorf(positionOfNode(&second), "a second document begins here: keep one document in the file")
}

func isControl(r rune) bool {
	return r == 0x7f || r < ' ' && r != '\t' && r != '\n' && r != '\r'
}

// outlineNode finds the places of the keys of a document's root.
func outlineNode(root *yaml.Node) (outline, error) {
	switch {
	case root.ShortTag() == "!!null":
		return nil, nil
	case root.Kind != yaml.MappingNode:
		return nil, syntaxErrorf(positionOfNode(root), `the file holds no keys: write them as in "masqLinkLocal: true"`)
	}
	var keys outline
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, syntaxErrorf(positionOfNode(key), "a key must be a single word")
		}
		e := entry{key: key.Value, at: positionOfNode(key), value: positionOfNode(value)}
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if value.Kind == yaml.SequenceNode {
			e.items = positionsOfNodes(value.Content)
		}
		keys = append(keys, e)
	}
	return keys, nil
}

func positionOfNode(n *yaml.Node) position { return position{n.Line, n.Column} }

func positionsOfNodes(nodes []*yaml.Node) []position {
	positions := make([]position, len(nodes))
	for i, n := range nodes {
		positions[i] = positionOfNode(n)
	}
	return positions
}

// yamlError gives the YAML libraries' error a place. They only have it in the text, and what they call line N is the line
// before where a token is grammatically out of place. It is N if the file's first N lines alone give the same error.
func yamlError(data []byte, err error) error {
	reported, message := splitYAMLError(err)
	line := max(reported, 1)
	var ignored yaml.Node
	if _, again := splitYAMLError(yaml.Unmarshal(firstLines(data, line), &ignored)); again != message {
		line = 0
		if reported > 0 {
			line = reported + 1
		}
	}
	if indentedByTab(data, line) {
		message = "a tab indents this line: YAML wants spaces"
	}
	return syntaxErrorf(position{line: line}, "invalid YAML: %s", message)
}

// splitYAMLError takes the text "yaml: line N: message" apart, N being 0 where it has none.
func splitYAMLError(err error) (line int, message string) {
	if err == nil {
		return 0, ""
	}
	message = strings.TrimPrefix(err.Error(), "yaml: ")
	if first, rest, found := strings.Cut(message, ": "); found {
		if _, err := fmt.Sscanf(first, "line %d", &line); err == nil {
			return line, rest
		}
	}
	return 0, message
}

func firstLines(data []byte, count int) []byte {
	end := 0
	for ; count > 0; count-- {
		newline := bytes.IndexByte(data[end:], '\n')
		if newline < 0 {
			return data
		}
		end += newline + 1
	}
	return data[:end]
}

func indentedByTab(data []byte, line int) bool {
	if line == 0 {
		return false
	}
	text := data[len(firstLines(data, line-1)):]
	indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
	return bytes.IndexByte(indent, '\t') >= 0
}
