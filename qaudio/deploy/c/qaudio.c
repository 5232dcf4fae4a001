/* The reference inference that qaudio.h describes, in plain C99.
 *
 * With QAUDIO_MAIN it is a program: float32 samples from stdin, logits to stdout, bytes of state
 * and milliseconds to stderr. The argument "rows" takes rows of features in place of samples,
 * "features" writes them in place of logits, those apart that the end of the sound completes.
 */
#define QAUDIO_TABLES
#include "qaudio.h"

#include <math.h>
#include <string.h>

#define HALF (QAUDIO_N_FFT / 2)
#define BIAS_BITS 12 /* fraction of a bias, which is in steps of the layer's output */
#define MEAN_BITS 8  /* fraction of the means that the head takes */
#define NEVER 0xFFFFFFFFu

/* ---- Network ------------------------------------------------------------------------------ */

/* A sum of products in steps of the layer's output; ReLU, and no more than a byte holds. */
static uint8_t rescaled(int64_t sum, int32_t multiplier, int32_t bias, int shift)
{
    int64_t value = sum * multiplier + (int64_t)bias * ((int64_t)1 << (shift - BIAS_BITS));
    if (value <= 0) return 0;
    value = (value + ((int64_t)1 << (shift - 1))) >> shift;
    return (uint8_t)(value > 255 ? 255 : value);
}

/* Sign of a quaternion product's part: [of the result][of the input]. The weight's part in it is
 * their exclusive or. Real layers have one part. */
static const int8_t signs[4][4] = {{1, -1, -1, -1}, {1, 1, -1, 1}, {1, 1, 1, -1}, {1, -1, 1, 1}};

/* What one position of the kernel adds to the parts of one filter's output. Quaternion weights are
 * stored once and used in every part that they belong to. */
static void multiply(const qaudio_layer *layer, const int8_t *weight, const uint8_t *x,
                     int32_t *sums)
{
    const int parts = layer->parts, fed = layer->inputs / parts;
    for (int p = 0; p < parts; p++, weight += fed)
        for (int b = 0; b < parts; b++) {
            const uint8_t *part = x + b * fed;
            int32_t sum = 0;
            for (int g = 0; g < fed; g++) sum += weight[g] * (part[g] - layer->zero);
            sums[p ^ b] += signs[p ^ b][b] * sum;
        }
}

/* One row of a layer's output. `ring` holds the latest rows of its input, of which there are
 * `rows`; beyond them, and beside them, is zero. */
static void convolve(const qaudio_layer *layer, const uint8_t *ring, int32_t row, uint32_t rows,
                     uint8_t *out)
{
    const int kernel = layer->kernel, pad = kernel / 2;
    const int filters = layer->outputs / layer->parts;
    for (int column = 0; column < layer->width; column++)
        for (int f = 0; f < filters; f++) {
            const int8_t *weight = layer->weights + f * kernel * kernel * layer->inputs;
            int32_t sums[4] = {0, 0, 0, 0};
            for (int dy = 0; dy < kernel; dy++) {
                const int32_t y = row + dy - pad;
                if (y < 0 || (uint32_t)y >= rows) continue;
                for (int dx = 0; dx < kernel; dx++) {
                    const int x = column + dx - pad;
                    if (x < 0 || x >= layer->width) continue;
                    multiply(layer, weight + (dy * kernel + dx) * layer->inputs,
                             ring + ((y % kernel) * layer->width + x) * layer->inputs, sums);
                }
            }
            for (int part = 0; part < layer->parts; part++) {
                const int channel = part * filters + f;
                out[column * layer->outputs + channel] =
                    rescaled(sums[part], layer->multipliers[channel], layer->biases[channel],
                             layer->shift);
            }
        }
}

/* Add a row to the sums of the row before it; 1 when both are there and `row` is their mean. */
static int pool(const qaudio_layer *layer, uint16_t *sums, uint8_t *row, uint32_t number)
{
    const int values = layer->width / 2 * layer->outputs;
    for (int n = 0; n < values; n++) {
        const int at = n / layer->outputs * 2 * layer->outputs + n % layer->outputs;
        const int pair = row[at] + row[at + layer->outputs];
        sums[n] = (uint16_t)(number % 2 ? sums[n] + pair : pair);
    }
    if (number % 2 == 0) return 0;
    for (int n = 0; n < values; n++) row[n] = (uint8_t)((sums[n] + 2) >> 2);
    return 1;
}

/* Take a row of the last layer into maximum and sum over time of the sums over frequency. */
static void reduce(qaudio_state *state)
{
    for (int c = 0; c < QAUDIO_FEATURES; c++) {
        uint32_t sum = 0;
        for (int n = 0; n < QAUDIO_COLUMNS; n++) sum += state->row[n * QAUDIO_FEATURES + c];
        if (sum > state->top[c]) state->top[c] = sum;
        state->total[c] += sum;
    }
    state->pooled++;
}

/* A layer got one more row, or one past the end: pass on what that makes, as far as it goes. */
static void advance(qaudio_state *state, int k)
{
    for (;; k++) {
        const qaudio_layer *layer = &qaudio_layers[k];
        const uint32_t pad = (uint32_t)layer->kernel / 2, seen = ++state->seen[k];
        if (seen <= pad) return;
        const uint32_t number = seen - 1 - pad;
        const uint32_t rows = seen < state->end[k] ? seen : state->end[k];
        convolve(layer, state->rings + layer->ring, (int32_t)number, rows, state->row);
        if (layer->pool == 2 && !pool(layer, state->sums + layer->sums, state->row, number)) return;
        if (k + 1 == QAUDIO_LAYERS) {
            reduce(state);
            return;
        }
        const qaudio_layer *next = &qaudio_layers[k + 1];
        const uint32_t size = (uint32_t)(next->width * next->inputs);
        const uint32_t slot = state->seen[k + 1] % (uint32_t)next->kernel;
        memcpy(state->rings + next->ring + slot * size, state->row, size);
    }
}

void qaudio_push_row(qaudio_state *state, const uint8_t *row)
{
    const uint32_t size = QAUDIO_N_MELS * QAUDIO_CHANNELS;
    const uint32_t slot = state->rows++ % (uint32_t)qaudio_layers[0].kernel;
    memcpy(state->rings + slot * size, row, size);
    advance(state, 0);
}

/* Mean over frequency, maximum + mean over time, in steps of fc1's input. */
static void pool_over_time(const qaudio_state *state, uint8_t *out)
{
    const uint64_t count = (uint64_t)QAUDIO_COLUMNS * state->pooled;
    for (int c = 0; c < QAUDIO_FEATURES; c++) {
        const uint64_t sum = (uint64_t)state->top[c] * state->pooled + state->total[c];
        const uint64_t mean = ((sum << MEAN_BITS) + count / 2) / count;
        out[c] = rescaled((int64_t)mean, QAUDIO_HEAD_MULTIPLIER, 0, QAUDIO_HEAD_SHIFT);
    }
}

static void classify(const qaudio_state *state, float *logits)
{
    uint8_t pooled[QAUDIO_FEATURES], embedding[QAUDIO_EMBEDDING];
    pool_over_time(state, pooled);
    convolve(&qaudio_fc1, pooled, 0, 1, embedding);
    for (int k = 0; k < QAUDIO_CLASSES; k++) {
        const int8_t *weight = qaudio_classifier_weights + k * QAUDIO_EMBEDDING;
        int32_t sum = 0;
        for (int n = 0; n < QAUDIO_EMBEDDING; n++) sum += weight[n] * embedding[n];
        logits[k] = (float)sum * qaudio_classifier_scales[k] + qaudio_classifier_biases[k];
    }
}

/* ---- Front-end ---------------------------------------------------------------------------- */

/* DFT of HALF complex numbers in place, radix 2. */
static void transform(float *z)
{
    for (int n = 1, reversed = 0; n < HALF; n++) {
        int bit = HALF >> 1;
        for (; reversed & bit; bit >>= 1) reversed ^= bit;
        reversed ^= bit;
        if (n < reversed)
            for (int part = 0; part < 2; part++) {
                const float kept = z[2 * n + part];
                z[2 * n + part] = z[2 * reversed + part];
                z[2 * reversed + part] = kept;
            }
    }
    for (int size = 2; size <= HALF; size *= 2)
        for (int k = 0; k < size / 2; k++) {
            const int turn = k * (QAUDIO_N_FFT / size);
            const float c = qaudio_cosines[turn], s = qaudio_sines[turn];
            for (int n = k; n < HALF; n += size) {
                float *a = z + 2 * n, *b = z + 2 * (n + size / 2);
                const float real = b[0] * c + b[1] * s, imaginary = b[1] * c - b[0] * s;
                b[0] = a[0] - real;
                b[1] = a[1] - imaginary;
                a[0] += real;
                a[1] += imaginary;
            }
        }
}

/* Power of the real frame in state->spectrum, which is taken as HALF complex numbers. */
static void measure_power(qaudio_state *state)
{
    const float *z = state->spectrum;
    transform(state->spectrum);
    for (int k = 0; k <= HALF; k++) {
        const float *a = z + 2 * (k % HALF), *b = z + 2 * ((HALF - k) % HALF);
        const float c = k < HALF ? qaudio_cosines[k] : -1.0f, s = k < HALF ? qaudio_sines[k] : 0.0f;
        const float even = a[0] + b[0], even_i = a[1] - b[1];
        const float odd = a[1] + b[1], odd_i = b[0] - a[0];
        const float real = even + odd * c + odd_i * s, imaginary = even_i + odd_i * c - odd * s;
        state->power[k] = 0.25f * (real * real + imaginary * imaginary);
    }
}

/* Row `at` of a channel, not before the first row nor after row `last`. */
static const float *history(const qaudio_state *state, int channel, int32_t at, int32_t last)
{
    at = at > last ? last : at;
    return state->mels[channel][(at < 0 ? 0 : at) % QAUDIO_HISTORY];
}

/* The features that are complete when log-mels number `newest` are there, or would be: `last` is
 * the sound's last. Each delta takes two rows before and after its own. */
static void advance_features(qaudio_state *state, int32_t newest, int32_t last)
{
    uint8_t row[QAUDIO_N_MELS * QAUDIO_CHANNELS];
    for (int o = 1; o < QAUDIO_CHANNELS; o++) {
        const int32_t t = newest - 2 * o;
        if (t < 0 || t > last) continue;
        const float *a = history(state, o - 1, t - 2, last), *b = history(state, o - 1, t - 1, last);
        const float *c = history(state, o - 1, t + 1, last), *d = history(state, o - 1, t + 2, last);
        float *out = state->mels[o][t % QAUDIO_HISTORY];
        for (int m = 0; m < QAUDIO_N_MELS; m++)
            out[m] = ((c[m] - b[m]) + 2.0f * (d[m] - a[m])) / 10.0f;
    }
    const int32_t t = newest - 2 * (QAUDIO_CHANNELS - 1);
    if (t < 0) return;
    for (int o = 0; o < QAUDIO_CHANNELS; o++) {
        const float *found = history(state, o, t, last);
        for (int m = 0; m < QAUDIO_N_MELS; m++) {
            const float scale = qaudio_input_scales[o * QAUDIO_N_MELS + m];
            const float step = found[m] * scale + qaudio_input_shifts[o * QAUDIO_N_MELS + m];
            row[m * QAUDIO_CHANNELS + o] =
                (uint8_t)(step >= 255.0f ? 255 : step > 0.0f ? lrintf(step) : 0);
        }
    }
    qaudio_push_row(state, row);
}

/* One more spectrum, of the latest QAUDIO_N_FFT samples; the oldest is at `start` of the ring. */
static void make_frame(qaudio_state *state, uint32_t start)
{
    const float *weight = qaudio_mel_weights;
    float *out = state->mels[0][state->frames % QAUDIO_HISTORY];
    for (uint32_t n = 0; n < QAUDIO_N_FFT; n++)
        state->spectrum[n] = state->wave[(start + n) % QAUDIO_N_FFT] * qaudio_window[n];
    measure_power(state);
    for (int m = 0; m < QAUDIO_N_MELS; m++) {
        float sum = 0.0f;
        for (int n = 0; n < qaudio_mel_counts[m]; n++)
            sum += *weight++ * state->power[qaudio_mel_starts[m] + n];
        out[m] = (QAUDIO_LOGARITHM(sum) + QAUDIO_SHIFT) / QAUDIO_SCALE;
    }
    advance_features(state, (int32_t)state->frames, INT32_MAX);
    state->frames++;
}

/* One more sample, after pre-emphasis. The first HALF are mirrored before the first. */
static void take(qaudio_state *state, float sample)
{
    const uint32_t at = state->samples++;
    state->wave[(at + HALF) % QAUDIO_N_FFT] = sample;
    if (at <= HALF) state->wave[HALF - at] = sample;
    if (at == HALF) make_frame(state, 0);
    const uint32_t whole = state->samples - HALF; /* samples that the latest frame could start at */
    if (state->samples > HALF && whole % QAUDIO_HOP == 0) make_frame(state, whole % QAUDIO_N_FFT);
}

static void push(qaudio_state *state, float sample)
{
    const float last = state->last;
    const int begun = state->begun;
    state->last = sample;
    state->begun = 1;
    if (!QAUDIO_PREEMPHASIS)
        take(state, sample);
    else if (begun)
        take(state, sample - QAUDIO_PREEMPHASIS_BY * last);
}

void qaudio_push(qaudio_state *state, const float *samples, uint32_t count)
{
    while (count-- > 0) push(state, *samples++);
}

static void end_sound(qaudio_state *state)
{
    while (state->samples + QAUDIO_PREEMPHASIS < QAUDIO_MIN_SAMPLES) push(state, 0.0f);
    const uint32_t given = state->samples;
    for (uint32_t n = 0; n < HALF; n++) /* the last are mirrored after the end */
        take(state, state->wave[(given - 2 - n + HALF) % QAUDIO_N_FFT]);
    const int32_t last = (int32_t)state->frames - 1;
    for (int32_t n = 1; n <= 2 * (QAUDIO_CHANNELS - 1); n++)
        advance_features(state, last + n, last);
}

/* ---- The whole ---------------------------------------------------------------------------- */

void qaudio_begin(qaudio_state *state)
{
    memset(state, 0, sizeof *state);
    for (int k = 0; k < QAUDIO_LAYERS; k++) state->end[k] = NEVER;
}

void qaudio_end(qaudio_state *state, float *logits)
{
    if (state->samples > 0 || state->rows == 0) end_sound(state);
    for (int k = 0; k < QAUDIO_LAYERS; k++) {
        state->end[k] = state->seen[k];
        for (int n = 0; n < qaudio_layers[k].kernel / 2; n++) advance(state, k);
    }
    classify(state, logits);
}

void qaudio_probabilities(const float *logits, float *probabilities)
{
    float highest = logits[0], sum = 0.0f;
    for (int k = 1; k < QAUDIO_CLASSES; k++)
        if (logits[k] > highest) highest = logits[k];
    for (int k = 0; k < QAUDIO_CLASSES; k++) {
        const float logit = logits[k] / QAUDIO_TEMPERATURE;
        probabilities[k] = QAUDIO_MULTILABEL ? 1.0f / (1.0f + expf(-logit))
                                             : expf(logit - highest / QAUDIO_TEMPERATURE);
        sum += probabilities[k];
    }
    for (int k = 0; k < QAUDIO_CLASSES && !QAUDIO_MULTILABEL; k++) probabilities[k] /= sum;
}

const char *qaudio_label(int index)
{
    return qaudio_labels[index];
}

float qaudio_threshold(int index)
{
    return qaudio_thresholds[index];
}

#ifdef QAUDIO_MAIN
#include <stdio.h>
#include <time.h>

#define ROW (QAUDIO_N_MELS * QAUDIO_CHANNELS)

static qaudio_state state;

/* Write the row that came last, if one came. */
static void write_new_row(uint32_t before)
{
    const uint32_t slot = (state.rows + (uint32_t)qaudio_layers[0].kernel - 1)
                          % (uint32_t)qaudio_layers[0].kernel;
    if (state.rows > before) fwrite(state.rings + slot * ROW, ROW, 1, stdout);
}

int main(int count, char **arguments)
{
    static float samples[256], logits[QAUDIO_CLASSES];
    static uint8_t row[ROW];
    const char *mode = count > 1 ? arguments[1] : "";
    const int features = strcmp(mode, "features") == 0;
    size_t found;
    const clock_t start = clock();
    qaudio_begin(&state);
    if (strcmp(mode, "rows") == 0)
        while (fread(row, ROW, 1, stdin) == 1) qaudio_push_row(&state, row);
    else
        while ((found = fread(samples, sizeof *samples, features ? 1 : 256, stdin)) > 0) {
            const uint32_t before = state.rows;
            qaudio_push(&state, samples, (uint32_t)found);
            if (features) write_new_row(before);
        }
    qaudio_end(&state, logits);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    for (int k = 0; k < QAUDIO_CLASSES && !features; k++)
        printf("%.9g %s\n", logits[k], qaudio_label(k));
    fprintf(stderr, "%lu %.3f\n", (unsigned long)sizeof state, 1000.0 * seconds);
    return 0;
}
#endif
