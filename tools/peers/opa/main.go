// Command opa is what `proofbeat bench appraise` is measured beside: Open Policy Agent, as a library, with the same
// decision in Rego. The query is prepared once; each line on stdin names a file with an input as JSON, and the answer is
// one line of JSON: how long reading it took, and deciding, in milliseconds, and what was found.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"
)

//go:embed decision.rego
var decision string

type answer struct {
	ReadMs   float64 `json:"read_ms"`
	DecideMs float64 `json:"decide_ms"`
	Findings any     `json:"findings"`
}

func main() {
	if len(os.Args) != 2 {
		fail(2, "usage: opa DATA.json < names of files with inputs\n")
	}
	if err := serve(os.Args[1]); err != nil {
		fail(1, fmt.Sprintf("opa: %v\n", err))
	}
}

func serve(file string) error {
	ctx := context.Background()
	query, err := prepared(ctx, file)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		told, err := decided(ctx, query, lines.Text())
		if err != nil {
			return err
		}
		if err := out.Encode(told); err != nil {
			return err
		}
	}
	return nil
}

func prepared(ctx context.Context, file string) (rego.PreparedEvalQuery, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return rego.PreparedEvalQuery{}, err
	}
	var data map[string]any
	if err := util.UnmarshalJSON(raw, &data); err != nil {
		return rego.PreparedEvalQuery{}, err
	}
	// Data that is read as AST values once is not converted with each decision.
	store := inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true))
	return rego.New(
		rego.Query("data.proofbeat.finding"),
		rego.Module("decision.rego", decision),
		rego.Store(store),
	).PrepareForEval(ctx)
}

func decided(ctx context.Context, query rego.PreparedEvalQuery, file string) (answer, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return answer{}, err
	}
	began := time.Now()
	input, err := ast.ValueFromReader(bytes.NewReader(raw))
	if err != nil {
		return answer{}, err
	}
	read := time.Now()
	results, err := query.Eval(ctx, rego.EvalParsedInput(input))
	if err != nil {
		return answer{}, err
	}
	done := time.Now()
	if len(results) != 1 {
		return answer{}, fmt.Errorf("%s: %d results where one belongs", file, len(results))
	}
	return answer{ms(read.Sub(began)), ms(done.Sub(read)), results[0].Expressions[0].Value}, nil
}

func ms(took time.Duration) float64 {
	return float64(took.Nanoseconds()) / 1e6
}

func fail(code int, message string) {
	fmt.Fprint(os.Stderr, message)
	os.Exit(code)
}
